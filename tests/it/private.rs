//! What is for callers: told to whom the upstream lets in, and to nobody else, in whatever way it is asked for (S-1…S-8).

mod access;
mod ground;
mod limited;
mod matrix;
mod others;
mod shown;
