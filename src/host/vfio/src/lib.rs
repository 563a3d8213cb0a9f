//! hybond-vfio
