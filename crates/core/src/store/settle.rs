//! Lost answers.
