//! Pod templates, kept exactly as the user wrote them.
