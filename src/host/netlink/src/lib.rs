//! hybond-netlink
