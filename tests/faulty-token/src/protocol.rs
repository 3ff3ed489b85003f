//! The control protocol: one line of JSON each way, on a Unix stream socket.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::{Condition, Counters, Event, Fault};

/// What a controller asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Arm a fault; answered by `armed`.
    Inject {
        /// The fault.
        fault: Fault,
    },
    /// Disarm the fault of this number.
    Lift {
        /// From `armed`.
        id: u64,
    },
    /// Give the device a property.
    Impose {
        /// The property.
        condition: Condition,
    },
    /// Let something happen to the device.
    Strike {
        /// What.
        event: Event,
    },
    /// Let the calls that hang go on.
    Release,
    /// Undo all faults, conditions and events, and release what hangs. Sessions that were lost stay lost.
    Clear,
    /// Forget failed PIN attempts, as the security officer does.
    UnblockPin,
    /// Answered by `counters`.
    Counters,
    /// Set them to zero, the account of PINs included, but not the failed attempts in a row.
    ResetCounters,
}

/// What the module answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// It is armed, under this number.
    Armed(u64),
    /// What was seen.
    Counters(Box<Counters>),
    /// It was not understood or could not be done, for this reason.
    Refused(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_readme_is_understood_and_written_the_same_way() {
        let readme = include_str!("../README.md");
        let example = readme.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let mut understood = 0;
        for line in example.lines() {
            if !line.starts_with("{\"do\"") {
                let response: Response = serde_json::from_str(line).unwrap();
                assert_eq!(serde_json::to_string(&response).unwrap(), line);
            } else if let Ok(request) = serde_json::from_str::<Request>(line) {
                let again = serde_json::to_string(&request).unwrap();
                assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request);
                understood += 1;
            } else {
                assert!(line.contains("nonsense"), "{line}");
            }
        }
        assert_eq!(understood, example.lines().filter(|line| line.starts_with("{\"do\"")).count() - 1);
        assert!(understood > 8);
    }
}
