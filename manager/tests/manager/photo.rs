//! The photo example (`examples/photo`), as its reader runs it.
