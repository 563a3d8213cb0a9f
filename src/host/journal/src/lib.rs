//! hybond-journal
