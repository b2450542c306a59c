//! Configuration: composes the settings that live with the modules they configure.
