//! Broken streams, wrong calls, lost devices.

use super::*;

#[test]
fn broken_streams_give_the_same_error() {
    for device in devices() {
        let waves = profile("waves");
        let demo = profile("demo");
        let mut shape = vec![1, 0, 4, 4];
        shape[1] = demo.layout().channels();
        let cases: Vec<(Option<&Arc<Profile>>, Vec<u8>)> = vec![
            {
                let options = Options { chunks: Some(3), lanes: Some(4), rdo: true };
                let feature = array::<f32>(&[9, 6, 5], 1, 1.0);
                (None, cpu_encoder(None, options).encode(&feature, Quality::Scale(0.02)).unwrap())
            },
            {
                let options = Options { chunks: Some(1), lanes: Some(32), rdo: true };
                let feature = array::<f32>(&[40, 3, 3], 1, 1.0);
                (None, cpu_encoder(None, options).encode(&feature, Quality::Scale(0.01)).unwrap())
            },
            {
                let feature = array::<f32>(&[1, 6, 8, 8], 2, 4.0);
                (Some(&waves), cpu_encoder(Some(&waves), DEFAULT).encode(&feature, Quality::Scale(0.3)).unwrap())
            },
            {
                let feature = array::<f32>(&shape, 3, 3.0);
                (Some(&demo), cpu_encoder(Some(&demo), DEFAULT).encode(&feature, Quality::Scale(2.0)).unwrap())
            },
        ];
        for (profile, stream) in &cases {
            let mut broken: Vec<Vec<u8>> = (0..stream.len()).map(|end| stream[..end].to_vec()).collect();
            for bit in 0..stream.len() * 8 {
                let mut bad = stream.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                broken.push(bad);
            }
            let mut longer = stream.clone();
            longer.push(0);
            broken.push(longer.clone());
            longer.push(0);
            broken.push(longer);
            let mut cpu = cpu_decoder(*profile);
            let mut gpu = gpu_decoder(&device, *profile);
            for batch in broken.chunks(64) {
                let streams: Vec<_> = batch.iter().map(Vec::as_slice).collect();
                for (bad, result) in batch.iter().zip(gpu.decode_batch(&streams)) {
                    let expected = cpu.decode(bad);
                    same(result.map(|f| bits(&f)), expected.map(|f| bits(&f)), || format!("{bad:?}"));
                }
            }
        }
    }
}

#[test]
fn wrong_calls_give_the_same_error() {
    for device in devices() {
        let feature = array::<f32>(&[5, 4, 4], 1, 1.0);
        let waves = profile("waves");
        let quality = Quality::default();
        for profile in [None, Some(&waves)] {
            let options = Options { lanes: Some(3), ..DEFAULT };
            for (options, quality) in [
                (options, quality),
                (DEFAULT, Quality::Scale(f32::NAN)),
                (DEFAULT, Quality::Bytes(1)),
                (DEFAULT, Quality::Sqnr(900.0)),
                (DEFAULT, Quality::Sqnr(f32::NAN)),
            ] {
                let expected = cpu_encoder(profile, options).encode(&feature, quality);
                assert!(expected.is_err());
                same(gpu_encoder(&device, profile, options).encode(&feature, quality), expected, || {
                    format!("{quality:?}")
                });
            }
        }
        let view = FeatureView::from(&feature).with_axes(Axes { channels: 7, batch: None });
        let expected = cpu_encoder(None, DEFAULT).encode(view.clone(), quality);
        same(gpu_encoder(&device, None, DEFAULT).encode(view, quality), expected, || "axes".into());
        let stream = cpu_encoder(Some(&waves), DEFAULT).encode(&array::<f32>(&[6, 4, 4], 1, 1.0), quality).unwrap();
        let expected = cpu_decoder(None).decode(&stream);
        same(gpu::Decoder::new(&device).decode(&stream), expected, || "profile".into());
        let limits = narrows::Limits { output_bytes: 100, ..narrows::Limits::default() };
        let expected = cpu_decoder(Some(&waves)).limits(limits).decode(&stream);
        same(gpu_decoder(&device, Some(&waves)).limits(limits).decode(&stream), expected, || "limits".into());
    }
}

#[test]
fn a_lost_device_is_an_error_and_the_cpu_takes_over_if_asked_to() {
    if devices().is_empty() {
        return;
    }
    let feature = array::<f32>(&[6, 8, 8], 1, 1.0);
    let quality = Quality::Scale(0.5);
    for profile in [None, Some(profile("waves"))] {
        let profile = profile.as_ref();
        let expected = cpu_encoder(profile, DEFAULT).encode(&feature, quality).unwrap();
        let decoded = cpu_decoder(profile).decode(&expected).unwrap();
        for used_before in [false, true] {
            let device = Device::request().unwrap();
            let mut encoder = gpu_encoder(&device, profile, DEFAULT);
            let mut decoder = gpu_decoder(&device, profile);
            if used_before {
                assert_eq!(encoder.encode(&feature, quality).unwrap(), expected);
                assert_eq!(decoder.decode(&expected).unwrap(), decoded);
            }
            let inside = FeatureBuffer::new(buffer(&device, &[0; 4 * 384]), &[6, 8, 8], Dtype::F32);
            device.wgpu_device().destroy();
            for _ in 0..2 {
                assert!(matches!(encoder.encode(&feature, quality), Err(Error::Backend(_))));
                assert!(matches!(encoder.encode(&inside, quality), Err(Error::Backend(_))));
                assert!(matches!(decoder.decode(&expected), Err(Error::Backend(_))));
                assert!(matches!(decoder.decode_into(&expected, &inside), Err(Error::Backend(_))));
            }
            assert!(device.is_lost());
            let (mut encoder, mut decoder) = (encoder.fallback(true), decoder.fallback(true));
            assert_eq!(encoder.encode(&feature, quality).unwrap(), expected);
            assert_eq!(decoder.decode(&expected).unwrap(), decoded);
            assert!(matches!(encoder.encode(&inside, quality), Err(Error::Backend(_))));
        }
    }
}

#[test]
fn a_device_of_the_callers_own() {
    if devices().is_empty() {
        return;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    let device = Device::new(device, queue).unwrap();
    // Requested without subgroups, so it has none.
    assert_eq!(device.info().subgroups, None);
    check(&device, None, (&array::<f32>(&[6, 8, 8], 1, 1.0)).into(), Quality::Scale(0.1), DEFAULT);
    // A mistake of the caller's on the device is told by the next call, once.
    let own = Device::request().unwrap();
    let _too_large = own.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 50,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let small = array::<f32>(&[9], 1, 1.0);
    let told = gpu::Encoder::plain(&own).encode(&small, Quality::default());
    assert!(matches!(told, Err(Error::Backend(_))), "{told:?}");
    assert!(gpu::Encoder::plain(&own).encode(&small, Quality::default()).is_ok());
    // Losing the device is an error too.
    device.wgpu_device().destroy();
    let result = gpu::Decoder::new(&device)
        .decode(&narrows::encode(&array::<f32>(&[9], 1, 1.0), None, Quality::default()).unwrap());
    assert!(matches!(result, Err(Error::Backend(_))), "{result:?}");
}
