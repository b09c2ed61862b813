//! Features in buffers of the GPU.

use super::*;

/// The bytes of a tensor whose elements lie `offset` and `strides` apart among bytes of 0xAA.
fn strided<T: Element>(array: &ArrayD<T>, offset: usize, strides: &[usize], elements: usize) -> Vec<u8> {
    let size = T::DTYPE.size();
    let mut bytes = vec![0xAA; elements * size];
    for (at, x) in array.indexed_iter() {
        let index: usize = offset + (0..array.ndim()).map(|axis| at[axis] * strides[axis]).sum::<usize>();
        bytes[index * size..][..size].copy_from_slice(&x.bytes()[..size]);
    }
    bytes
}

#[test]
fn features_in_buffers_with_offsets_and_strides() {
    fn check<T: Element>(device: &Device, profile: Option<&Arc<Profile>>, seed: u64) {
        let shape = [2, 6, 9, 7];
        let array = array::<T>(&shape, seed, 3.0);
        // Dense after an odd offset; channels last in rows that are too long; every other element.
        let layouts: [(usize, [usize; 4]); 3] =
            [(77, [378, 63, 7, 1]), (3, [800, 1, 80, 9]), (1, [2 * 378, 2 * 63, 2 * 7, 2])];
        for (offset, strides) in layouts {
            let elements = 2000;
            let bytes = strided(&array, offset, &strides, elements);
            let feature = FeatureBuffer::new(buffer(device, &bytes), &shape, T::DTYPE).offset(offset).strides(&strides);
            for quality in [Quality::Scale(0.3), Quality::Bytes(400), Quality::Sqnr(2.0)] {
                let expected = cpu_encoder(profile, DEFAULT).encode(&array, quality).unwrap();
                let stream = gpu_encoder(device, profile, DEFAULT).encode(&feature, quality).unwrap();
                assert_eq!(stream, expected, "{offset} {strides:?} {quality:?}");

                // Back into such a buffer: what lies between the elements stays.
                let decoded = cpu_decoder(profile).decode(&stream).unwrap();
                let target = FeatureBuffer { buffer: buffer(device, &vec![0xAA; bytes.len()]), ..feature.clone() };
                gpu_decoder(device, profile).decode_into(&stream, &target).unwrap();
                let expected = match &decoded {
                    Feature::F32(array) => strided(array, offset, &strides, elements),
                    Feature::F16(array) => strided(array, offset, &strides, elements),
                    other => panic!("{other:?}"),
                };
                assert_eq!(contents(device, &target.buffer), expected);
            }
        }
        // What does not fit is refused.
        let small = FeatureBuffer::new(buffer(device, &[0; 400]), &shape, T::DTYPE);
        let mut encoder = gpu_encoder(device, profile, DEFAULT);
        assert!(matches!(encoder.encode(&small, Quality::default()), Err(Error::InvalidInput(_))));
        let stream = cpu_encoder(profile, DEFAULT).encode(&array, Quality::default()).unwrap();
        let mut decoder = gpu_decoder(device, profile);
        assert!(matches!(decoder.decode_into(&stream, &small), Err(Error::InvalidInput(_))));
        let other = FeatureBuffer::new(buffer(device, &[0; 4000]), &[2, 6, 9, 8], T::DTYPE);
        assert!(matches!(decoder.decode_into(&stream, &other), Err(Error::InvalidInput(_))));
    }
    for device in devices() {
        for profile in [None, Some(profile("rectified")), Some(profile("waves"))] {
            check::<f32>(&device, profile.as_ref(), 1);
            check::<f16>(&device, profile.as_ref(), 2);
        }
    }
}
