use std::time::Duration;

use proptest::prelude::*;

use super::lab::Lab;
use crate::State;

fn check(
    left: u32,
    right: u32,
    there: u64,
    back: u64,
    graceful: bool,
) -> Result<(), TestCaseError> {
    let mut lab = Lab::pair_with(left, right, |peer| peer.graceful_restart = graceful);
    lab.latency.insert((0, 1), Duration::from_millis(there));
    lab.latency.insert((1, 0), Duration::from_millis(back));
    lab.originate(0, "10.1.0.0/16");
    lab.originate(1, "10.2.0.0/16");
    lab.run(40);
    let story = lab.tell();
    prop_assert_eq!(lab.state(0, 1), State::Established, "{}", story);
    prop_assert_eq!(lab.state(1, 0), State::Established, "{}", story);
    prop_assert_eq!(lab.fib(0), "10.2.0.0/16 via 10.0.0.2\n", "{}", story);
    prop_assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n", "{}", story);
    lab.run(300);
    let later = lab.tell();
    prop_assert_eq!(later.trim(), "");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Both sides connect at about the same time, over links of any delay: one session comes up and stays.
    #[test]
    fn one_of_two_connections_survives(
        there in 0_u64..400,
        back in 0_u64..400,
        internal in any::<bool>(),
        graceful in any::<bool>(),
    ) {
        check(1, if internal { 1 } else { 2 }, there, back, graceful)?;
    }
}
