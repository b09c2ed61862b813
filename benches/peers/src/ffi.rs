//! The C libraries: bindings written by hand, wrapped so that nothing outside this file is unsafe.
#![allow(unsafe_code)]

/// Debian's libhtscodecs.
#[cfg(feature = "htscodecs")]
pub mod htscodecs {
    use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint};

    unsafe extern "C" {
        fn rans_compress_bound_4x16(size: c_uint, order: c_int) -> c_uint;
        fn rans_compress_to_4x16(
            input: *const c_uchar,
            size: c_uint,
            out: *mut c_uchar,
            out_size: *mut c_uint,
            order: c_int,
        ) -> *mut c_uchar;
        fn rans_uncompress_to_4x16(
            input: *const c_uchar,
            size: c_uint,
            out: *mut c_uchar,
            out_size: *mut c_uint,
        ) -> *mut c_uchar;
        fn arith_compress_bound(size: c_uint, order: c_int) -> c_uint;
        fn arith_compress_to(
            input: *const c_uchar,
            size: c_uint,
            out: *mut c_uchar,
            out_size: *mut c_uint,
            order: c_int,
        ) -> *mut c_uchar;
        fn arith_uncompress_to(
            input: *const c_uchar,
            size: c_uint,
            out: *mut c_uchar,
            out_size: *mut c_uint,
        ) -> *mut c_uchar;
        fn rans_set_cpu(options: c_int);
        fn htscodecs_version() -> *const c_char;
    }

    /// The flag of 32 interleaved states.
    pub const X32: i32 = 4;

    /// Which of the library's coders.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Method {
        /// Static rANS.
        Rans,
        /// The adaptive arithmetic coder.
        Arithmetic,
    }

    /// Appends a stream; `order` is 0 or 1, with [`X32`] for 32 states.
    pub fn compress(method: Method, order: i32, symbols: &[u8], out: &mut Vec<u8>) {
        let size = c_uint::try_from(symbols.len()).expect("at most 4 GiB");
        // SAFETY: no pointer is passed.
        let mut room = unsafe {
            match method {
                Method::Rans => rans_compress_bound_4x16(size, order),
                Method::Arithmetic => arith_compress_bound(size, order),
            }
        };
        let start = out.len();
        out.reserve(room as usize);
        let call = if method == Method::Rans { rans_compress_to_4x16 } else { arith_compress_to };
        // SAFETY: `symbols` is readable for `size` bytes and only read, though the C type is not const; the spare
        // capacity is writable for `room` bytes, the bound that the library asked for.
        let written = unsafe { call(symbols.as_ptr(), size, out.as_mut_ptr().add(start), &mut room, order) };
        assert!(!written.is_null(), "htscodecs could not encode");
        // SAFETY: the library wrote `room` bytes there, no more than were reserved.
        unsafe { out.set_len(start + room as usize) };
    }

    /// Decodes a stream of [`compress`].
    pub fn uncompress(method: Method, stream: &[u8], symbols: &mut [u8]) {
        let mut size = c_uint::try_from(symbols.len()).expect("at most 4 GiB");
        let call = if method == Method::Rans { rans_uncompress_to_4x16 } else { arith_uncompress_to };
        // SAFETY: `stream` is readable for its length and only read; `symbols` is writable for `size` bytes.
        let ok = unsafe { call(stream.as_ptr(), stream.len() as c_uint, symbols.as_mut_ptr(), &mut size) };
        assert!(!ok.is_null() && size as usize == symbols.len(), "htscodecs could not decode");
    }

    /// Restricts rANS to the instructions of these bits (1 SSE4, 2 AVX2, 4 AVX-512, 8 NEON) in both directions.
    pub fn set_cpu(bits: i32) {
        // SAFETY: sets one integer of the library; no other thread runs.
        unsafe { rans_set_cpu(bits | bits << 8) }
    }

    /// The version of the library.
    pub fn version() -> String {
        // SAFETY: the library returns a string constant.
        unsafe { CStr::from_ptr(htscodecs_version()) }.to_string_lossy().into_owned()
    }
}

/// Debian's libcharls: JPEG-LS.
#[cfg(feature = "charls")]
pub mod charls {
    use std::ffi::{CStr, c_char, c_int, c_void};

    /// `charls_frame_info`.
    #[repr(C)]
    struct Frame {
        width: u32,
        height: u32,
        bits: i32,
        components: i32,
    }

    unsafe extern "C" {
        fn charls_jpegls_encoder_create() -> *mut c_void;
        fn charls_jpegls_encoder_destroy(encoder: *const c_void);
        fn charls_jpegls_encoder_set_frame_info(encoder: *mut c_void, frame: *const Frame) -> c_int;
        fn charls_jpegls_encoder_get_estimated_destination_size(encoder: *const c_void, size: *mut usize) -> c_int;
        fn charls_jpegls_encoder_set_destination_buffer(encoder: *mut c_void, out: *mut c_void, size: usize) -> c_int;
        fn charls_jpegls_encoder_encode_from_buffer(
            encoder: *mut c_void,
            pixels: *const c_void,
            size: usize,
            stride: u32,
        ) -> c_int;
        fn charls_jpegls_encoder_get_bytes_written(encoder: *const c_void, size: *mut usize) -> c_int;
        fn charls_jpegls_decoder_create() -> *mut c_void;
        fn charls_jpegls_decoder_destroy(decoder: *const c_void);
        fn charls_jpegls_decoder_set_source_buffer(decoder: *mut c_void, stream: *const c_void, size: usize) -> c_int;
        fn charls_jpegls_decoder_read_header(decoder: *mut c_void) -> c_int;
        fn charls_jpegls_decoder_decode_to_buffer(
            decoder: *mut c_void,
            pixels: *mut c_void,
            size: usize,
            stride: u32,
        ) -> c_int;
        fn charls_get_version_string() -> *const c_char;
    }

    /// Appends the stream of a grey image of 8 bits.
    pub fn compress(pixels: &[u8], width: usize, out: &mut Vec<u8>) {
        let frame = Frame { width: width as u32, height: (pixels.len() / width) as u32, bits: 8, components: 1 };
        let start = out.len();
        // SAFETY: the encoder is made, used and destroyed here; `frame` and `size` outlive the calls; `pixels` is
        // readable for its length; the spare capacity is writable for the `room` bytes reserved, of which the library
        // says how many it wrote before they become part of `out`.
        unsafe {
            let encoder = charls_jpegls_encoder_create();
            assert!(!encoder.is_null());
            assert_eq!(charls_jpegls_encoder_set_frame_info(encoder, &frame), 0);
            let mut room = 0;
            assert_eq!(charls_jpegls_encoder_get_estimated_destination_size(encoder, &mut room), 0);
            out.reserve(room);
            let to = out.as_mut_ptr().add(start).cast();
            assert_eq!(charls_jpegls_encoder_set_destination_buffer(encoder, to, room), 0);
            assert_eq!(charls_jpegls_encoder_encode_from_buffer(encoder, pixels.as_ptr().cast(), pixels.len(), 0), 0);
            let mut size = 0;
            assert_eq!(charls_jpegls_encoder_get_bytes_written(encoder, &mut size), 0);
            charls_jpegls_encoder_destroy(encoder);
            out.set_len(start + size);
        }
    }

    /// Decodes a stream of [`compress`].
    pub fn uncompress(stream: &[u8], pixels: &mut [u8]) {
        // SAFETY: the decoder is made, used and destroyed here; `stream` is readable and `pixels` writable for their
        // lengths, and the library refuses an image that does not fit.
        unsafe {
            let decoder = charls_jpegls_decoder_create();
            assert!(!decoder.is_null());
            assert_eq!(charls_jpegls_decoder_set_source_buffer(decoder, stream.as_ptr().cast(), stream.len()), 0);
            assert_eq!(charls_jpegls_decoder_read_header(decoder), 0);
            let to = pixels.as_mut_ptr().cast();
            assert_eq!(charls_jpegls_decoder_decode_to_buffer(decoder, to, pixels.len(), 0), 0);
            charls_jpegls_decoder_destroy(decoder);
        }
    }

    /// The version of the library.
    pub fn version() -> String {
        // SAFETY: the library returns a string constant.
        unsafe { CStr::from_ptr(charls_get_version_string()) }.to_string_lossy().into_owned()
    }
}
