//! Kinds without `spec`: their fields stand next to the metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use super::{Endpoint, EndpointPort};
use crate::{KindInfo, ObjectMeta, Resource, Scope, wire::null_as_default};

macro_rules! flat {
    ($(#[$doc:meta])* $name:ident, $group:literal, $version:literal, $plural:literal,
     { $($(#[$field_doc:meta])* $field:ident as $json:literal: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq)]
        #[serde(default)]
        pub struct $name {
            /// Standard metadata.
            pub metadata: ObjectMeta,
            $($(#[$field_doc])* #[serde(rename = $json, deserialize_with = "null_as_default")] pub $field: $type,)*
        }

        impl Resource for $name {
            const KIND: KindInfo = KindInfo {
                group: $group,
                version: $version,
                kind: stringify!($name),
                plural: $plural,
                scope: Scope::Namespaced,
            };

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("apiVersion", &Self::KIND.api_version())?;
                map.serialize_entry("kind", Self::KIND.kind)?;
                map.serialize_entry("metadata", &self.metadata)?;
                $(if self.$field != <$type>::default() {
                    map.serialize_entry($json, &self.$field)?;
                })*
                map.end()
            }
        }
    };
}

flat!(
    /// A service account: its labels are what policies match.
    ServiceAccount, "", "v1", "serviceaccounts", {}
);

flat!(
    /// A secret, such as BGP passwords.
    Secret, "", "v1", "secrets", {
        /// What it holds, such as `Opaque`.
        secret_type as "type": Option<String>,
        /// Values in base64.
        data as "data": BTreeMap<String, String>,
        /// Values in clear; the API server moves them to `data`.
        string_data as "stringData": BTreeMap<String, String>,
    }
);

flat!(
    /// A config map.
    ConfigMap, "", "v1", "configmaps", {
        /// Values.
        data as "data": BTreeMap<String, String>,
        /// Values that are no UTF-8, in base64.
        binary_data as "binaryData": BTreeMap<String, String>,
    }
);

flat!(
    /// Some of the backends of a service; the label `kubernetes.io/service-name` names it.
    EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", {
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type as "addressType": String,
        /// Backends.
        endpoints as "endpoints": Vec<Endpoint>,
        /// Ports that every backend has.
        ports as "ports": Vec<EndpointPort>,
    }
);

impl EndpointSlice {
    /// The label that names the service a slice belongs to.
    pub const SERVICE_LABEL: &'static str = "kubernetes.io/service-name";

    /// Returns the name of the service this slice belongs to; it lives in the slice's namespace.
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.metadata.labels.get(Self::SERVICE_LABEL).map(String::as_str)
    }
}
