//! hybond-libvirt
