//! Tests of this room.
#![expect(clippy::string_slice, reason = "tests cut ASCII texts of their own making")]
#![expect(clippy::type_complexity, reason = "tables of cases")]

mod certificates;
mod crafted;
mod deployments;
mod enrolments;
mod foreign;
mod fuzz;
mod logins;
mod one_time_codes;
mod passwords;
mod signatures;
mod stepups;
pub(crate) mod support;
mod tokens;
