//! hybond-qmp
