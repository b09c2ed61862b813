//! The link: servers in this process and in processes of their own, clients that are good and clients that are not. Every call
//! of the protocol is answered, every mistake gets its code and a word on what to do; bounds hold, nothing is lost when a
//! server ends or is killed, and hostile clients neither stop the service nor make it grow.

mod calls;
mod hostile;
mod layers;
mod limits;
mod processes;
mod raw;
mod support;
mod tls;
