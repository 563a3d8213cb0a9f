//! hybond-peer
