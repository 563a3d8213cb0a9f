//! hybond-lab
