//! hybond-test-netns
