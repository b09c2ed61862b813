//! Fixed-length fields, little-endian, low bits first.

/// Appends `values`, `bits` bits each (1 to 8), to `out`; the last byte is filled up with zeros.
pub fn pack(values: &[u8], bits: u32, out: &mut Vec<u8>) {
    let mut held = 0u32;
    let mut count = 0;
    for &value in values {
        held |= u32::from(value) << count;
        count += bits;
        while count >= 8 {
            out.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        out.push(held as u8);
    }
}

/// Reads fields of `bits` bits (1 to 8) into `values`; `bytes` holds at least
/// `values.len() * bits` bits, fields beyond its end read as zero.
pub fn unpack(bytes: &[u8], bits: u32, values: &mut [u8]) {
    let mask = (1u32 << bits) - 1;
    let mut held = 0u32;
    let mut count = 0;
    let mut bytes = bytes.iter();
    for value in values {
        while count < bits {
            held |= u32::from(bytes.next().copied().unwrap_or(0)) << count;
            count += 8;
        }
        *value = (held & mask) as u8;
        held >>= bits;
        count -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_width_and_count_come_back() {
        for bits in 1..=8 {
            for count in 0..40usize {
                let values: Vec<u8> = (0..count).map(|i| (i * 37 + 11) as u8 & ((1u32 << bits) - 1) as u8).collect();
                let mut bytes = Vec::new();
                pack(&values, bits, &mut bytes);
                assert_eq!(bytes.len(), (count * bits as usize).div_ceil(8));
                let mut back = vec![0; count];
                unpack(&bytes, bits, &mut back);
                assert_eq!(back, values);
            }
        }
    }
}
