#![no_std]
//! protocol
