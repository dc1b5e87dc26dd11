//! The engine through submissions and events, on a simulated device and a clock moved by hand.

mod beside;
mod cancel;
mod fairness;
mod faults;
mod interference;
mod prediction;
mod promises;
mod property;
mod scenarios;
mod thread;
mod world;
