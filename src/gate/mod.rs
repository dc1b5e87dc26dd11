//! May this request enter, now?
