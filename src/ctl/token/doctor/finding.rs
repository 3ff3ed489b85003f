//! One thing that was looked at.

use serde_json::{Value, json};

use crate::config::Origin;
use crate::ctl::output::plain;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    Problem,
    /// Could not be looked at from here.
    Skipped,
}

pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    pub(super) state: State,
    pub(super) detail: String,
    /// What to do.
    pub(super) remedy: Option<String>,
    /// Where: the line of the configuration, and the key there; or of the unit, and the directive.
    pub(super) place: Option<(Origin, String)>,
}

impl Finding {
    pub(super) fn new(check: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self { check, state, detail: detail.into(), remedy: None, place: None }
    }

    pub(super) fn for_people(&self) -> String {
        let mut text = format!("{:<9}{:<18}{}\n", self.state.word(), self.check, plain(&self.detail));
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("{:<9}{:<18}{}\n", "", "  what to do", plain(remedy)));
        }
        if let Some((origin, key)) = &self.place {
            text.push_str(&format!("{:<9}{:<18}{origin}: {key}\n", "", "  where"));
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({ "check": self.check, "state": self.state.word(), "detail": self.detail });
        if let Some(remedy) = &self.remedy {
            json["remedy"] = remedy.as_str().into();
        }
        if let Some((origin, key)) = &self.place {
            json["file"] = origin.file.display().to_string().into();
            json["line"] = origin.line.into();
            json["column"] = origin.column.into();
            json["key"] = key.as_str().into();
        }
        json
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }
}
