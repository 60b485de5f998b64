//! What one may read: every row here can be deleted and rebuilt from the log.
