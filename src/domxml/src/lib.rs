//! hybond-domxml
