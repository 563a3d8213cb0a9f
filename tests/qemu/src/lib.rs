//! hybond-test-qemu
