//! hybond-guest
