//! Declares where kinds live, one line each.

/// `kind!(Alias, Spec, Status, "group", "version", "Kind", "plural", Scope);` with a doc comment for the alias.
macro_rules! kind {
    ($(#[$doc:meta])* $alias:ident, $spec:ty, $status:ty, $group:literal, $version:literal, $kind:literal,
     $plural:literal, $scope:ident) => {
        impl $crate::Spec for $spec {
            const KIND: $crate::KindInfo = $crate::KindInfo {
                group: $group,
                version: $version,
                kind: $kind,
                plural: $plural,
                scope: $crate::Scope::$scope,
            };
            type Status = $status;
        }

        $(#[$doc])*
        pub type $alias = $crate::Object<$spec>;
    };
}

pub(crate) use kind;
