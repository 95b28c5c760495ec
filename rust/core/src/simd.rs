//! Instructions chosen at run time: which tier of them is used, and the only unsafe code of the core.
