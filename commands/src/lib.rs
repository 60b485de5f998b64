//! What one may ask: gathers facts, lets the domain decide, appends.
