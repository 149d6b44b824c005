//! The shell: watches, index, queue, building the World, executing Plans, telemetry.
