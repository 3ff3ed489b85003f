//! placeholder
use super::cli::TokenDoctorArgs;
use crate::ctl::error::CtlError;
use crate::ctl::output::Report;
pub(crate) fn run(_: &TokenDoctorArgs) -> Result<Report, CtlError> { Err(CtlError::Usage(String::new())) }
