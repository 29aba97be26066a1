//! A master leaves: its own member goes, and its Node.
