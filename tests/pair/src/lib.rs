//! hybond-test-pair
