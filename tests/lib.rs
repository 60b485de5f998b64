//! End-to-end tests live in the folders beside this file.
