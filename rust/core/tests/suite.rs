//! All integration tests of the core, one module a topic.
