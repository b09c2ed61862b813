//! Shapes, dtypes, profiles, qualities, chunks, lanes, batches.

use super::*;

#[test]
fn golden_streams_decode_to_what_they_always_did() {
    for device in devices() {
        let mut decoder = [profile("waves"), profile("rectified"), profile("bursts")]
            .into_iter()
            .fold(gpu::Decoder::new(&device), gpu::Decoder::profile);
        let mut names = Vec::new();
        for entry in fs::read_dir(vectors()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "stream") {
                names.push(path);
            }
        }
        let streams: Vec<_> = names.iter().map(|name| fs::read(name).unwrap()).collect();
        let streams: Vec<_> = streams.iter().map(Vec::as_slice).collect();
        // One by one, and all of them in one submission.
        let one_by_one: Vec<_> = streams.iter().map(|stream| decoder.decode(stream)).collect();
        for results in [one_by_one, decoder.decode_batch(&streams)] {
            for (name, result) in names.iter().zip(results) {
                let feature = result.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
                let size = feature.dtype().size();
                let bytes: Vec<u8> = bits(&feature).2.iter().flat_map(|x| x.to_le_bytes()[..size].to_vec()).collect();
                assert_eq!(bytes, fs::read(name.with_extension("feature")).unwrap(), "{}", name.display());
            }
        }
        assert!(streams.len() >= 80);
    }
}

#[test]
fn profiles_of_all_kinds() {
    let waves = |seed: u64, shape: &[usize]| {
        let rough = array::<f32>(shape, seed, 1.0);
        let mut at = 0;
        rough.mapv(|x| {
            at += 1;
            x + 2.0 * (at as f32 * 0.37 + seed as f32).sin()
        })
    };
    for device in devices() {
        for (name, shape) in [("waves", [1, 6, 8, 8]), ("rectified", [1, 6, 8, 8]), ("demo", [1, 32, 16, 16])] {
            let profile = profile(name);
            let mut shape = shape;
            shape[1] = profile.layout().channels();
            let feature = waves(3, &shape);
            let feature = if name == "waves" { feature } else { feature.mapv(|x| x.max(0.0)) };
            for scale in [0.02, 0.3, 1.0, 6.0] {
                check(&device, Some(&profile), (&feature).into(), Quality::Scale(scale), DEFAULT);
            }
            for rdo in [false, true] {
                for (chunks, lanes) in [(1, 1), (2, 2), (3, 4), (1, 8), (7, 16), (100, 32)] {
                    let options = Options { chunks: Some(chunks), lanes: Some(lanes), rdo };
                    check(&device, Some(&profile), (&feature).into(), Quality::Scale(0.2), options);
                }
            }
            // Other sizes: blocks that are cut off, several planes, one row, nothing.
            for other in [[3, 0, 9, 11], [1, 0, 1, 30], [2, 0, 17, 1], [1, 0, 1, 1], [2, 0, 0, 5]] {
                let mut shape = other;
                shape[1] = profile.layout().channels();
                check(&device, Some(&profile), (&waves(5, &shape)).into(), Quality::Scale(0.5), DEFAULT);
            }
            // Nothing to code: no position, or no channel that is worth a bit.
            let options = Options { chunks: Some(2), lanes: Some(4), rdo: true };
            let empty = ArrayD::<f32>::zeros(IxDyn(&[1, profile.layout().channels(), 0, 3]));
            check(&device, Some(&profile), (&empty).into(), Quality::Scale(1.0), options);
            check(&device, Some(&profile), (&feature).into(), Quality::Scale(250.0), options);
            check(&device, Some(&profile), (&feature).into(), Quality::Bytes(150), DEFAULT);
            check(&device, Some(&profile), (&feature).into(), Quality::Bytes(3), DEFAULT);
            check(&device, Some(&profile), (&feature).into(), Quality::Sqnr(9.0), DEFAULT);
        }
    }
}

#[test]
fn plain_shapes_dtypes_and_qualities() {
    for device in devices() {
        for shape in [
            &[1][..],
            &[1, 1, 1],
            &[7],
            &[31, 3],
            &[5, 32],
            &[33, 2, 3],
            &[63, 4, 4],
            &[65, 3, 2],
            &[2, 3, 4, 5],
            &[2, 2, 2, 3, 2, 3, 2, 2],
            &[2048, 2, 2],
            &[96, 13, 11],
            &[0, 3],
            &[16, 128, 128],
        ] {
            check(&device, None, (&array::<f32>(shape, 1, 1.0)).into(), Quality::Scale(1.0), DEFAULT);
        }
        let shape = [3, 20, 7, 9];
        for quality in [Quality::Scale(0.004), Quality::Scale(30.0), Quality::Bytes(700), Quality::Sqnr(21.0)] {
            check(&device, None, (&array::<f32>(&shape, 2, 1.0)).into(), quality, DEFAULT);
        }
        check(&device, None, (&array::<f16>(&shape, 3, 2.0)).into(), Quality::Scale(0.5), DEFAULT);
        check(&device, None, (&array::<bf16>(&shape, 4, 1e20)).into(), Quality::Scale(0.5), DEFAULT);
        check(&device, None, (&array::<i8>(&shape, 5, 90.0)).into(), Quality::Scale(0.2), DEFAULT);
        check(&device, None, (&array::<u8>(&shape, 6, 90.0)).into(), Quality::Sqnr(30.0), DEFAULT);
        check(&device, None, (&array::<f32>(&shape, 7, 1e-37)).into(), Quality::Scale(1.0), DEFAULT);
        check(&device, None, (&array::<f32>(&shape, 8, 1e37)).into(), Quality::Scale(1.0), DEFAULT);
        for (chunks, lanes) in [(1, 1), (5, 2), (60, 4), (21, 8), (2, 16), (9, 32)] {
            let options = Options { chunks: Some(chunks), lanes: Some(lanes), rdo: chunks % 2 == 0 };
            check(&device, None, (&array::<f32>(&shape, 9, 1.0)).into(), Quality::Scale(0.01), options);
        }
        // Any memory order and any axes.
        let mut turned = ArrayD::<f32>::zeros(IxDyn(&[4, 6, 5]).f());
        turned.assign(&array::<f32>(&[4, 6, 5], 10, 1.0));
        for channels in 0..3 {
            for batch in [None, Some(0), Some(2)] {
                let view =
                    FeatureView::from(&turned).channel_axis(channels).batch_axis(batch.filter(|&b| b != channels));
                check(&device, None, view, Quality::Scale(0.5), DEFAULT);
            }
        }
    }
}

#[test]
fn batches_are_what_their_features_are() {
    for device in devices() {
        for profile in [None, Some(profile("rectified")), Some(profile("waves"))] {
            let profile = profile.as_ref();
            let options = Options { chunks: Some(2), ..DEFAULT };
            let shapes: [&[usize]; 5] = [&[1, 6, 8, 8], &[1, 6, 9, 5], &[6, 4, 4], &[6, 1, 1], &[2, 6, 8, 8]];
            let features: Vec<_> =
                (0..23).map(|i| array::<f32>(shapes[i * i % 5], i as u64, 1.0 + (i % 3) as f32)).collect();
            let halves: Vec<_> = (0..3).map(|i| array::<f16>(&[6, 5, 5], i as u64, 2.0)).collect();
            let mut sources: Vec<Source<'_>> = features.iter().map(Source::from).collect();
            sources.extend(halves.iter().map(Source::from));
            let mut expected: Vec<_> = features
                .iter()
                .map(|f| cpu_encoder(profile, options).encode(f, Quality::Scale(0.2)).unwrap())
                .collect();
            expected
                .extend(halves.iter().map(|f| cpu_encoder(profile, options).encode(f, Quality::Scale(0.2)).unwrap()));
            let mut encoder = gpu_encoder(&device, profile, options);
            // Twice: buffers are used again.
            for _ in 0..2 {
                assert_eq!(encoder.encode_batch(&sources, Quality::Scale(0.2)).unwrap(), expected);
            }
            assert_eq!(encoder.encode_batch(&[], Quality::Scale(0.2)).unwrap(), Vec::<Vec<u8>>::new());
            assert!(gpu_decoder(&device, profile).decode_batch(&[]).is_empty());
            // A clone has buffers of its own, and may work in another thread.
            let mut clone = encoder.clone();
            let (one, two) = std::thread::scope(|scope| {
                let there = scope.spawn(|| clone.encode_batch(&sources, Quality::Scale(0.2)));
                (encoder.encode_batch(&sources, Quality::Scale(0.2)), there.join().unwrap())
            });
            assert_eq!((one.unwrap(), two.unwrap()), (expected.clone(), expected.clone()));
            // A broken stream among them does no harm to the others.
            expected.insert(7, expected[3][..expected[3].len() - 2].to_vec());
            let streams: Vec<_> = expected.iter().map(Vec::as_slice).collect();
            let mut cpu = cpu_decoder(profile);
            for (i, result) in gpu_decoder(&device, profile).decode_batch(&streams).into_iter().enumerate() {
                let expected = cpu.decode(streams[i]);
                assert_eq!(result.is_err(), i == 7);
                same(result.map(|f| bits(&f)), expected.map(|f| bits(&f)), || format!("{i}"));
            }
        }
    }
}

#[test]
fn other_modes_are_left_to_the_cpu() {
    for device in devices() {
        let feature = array::<f32>(&[4, 5, 6], 1, 1.0);
        let stream = narrows::Encoder::lossless().encode(&feature, Quality::default()).unwrap();
        let mut decoder = gpu::Decoder::new(&device);
        assert_eq!(decoder.decode(&stream).unwrap(), Feature::from(feature.clone()));
        let target = FeatureBuffer::new(buffer(&device, &[0; 480]), &[4, 5, 6], Dtype::F32);
        assert!(matches!(decoder.decode_into(&stream, &target), Err(Error::Unsupported { .. })));
    }
}

#[test]
fn an_encoder_of_the_cpu_with_a_gpu_beside_it() {
    for device in devices() {
        let feature = array::<f32>(&[6, 8, 8], 1, 1.0);
        for profile in [None, Some(profile("waves"))] {
            let profile = profile.as_ref();
            let expected = cpu_encoder(profile, DEFAULT).encode(&feature, Quality::Scale(0.4)).unwrap();
            let decoded = cpu_decoder(profile).decode(&expected).unwrap();
            for always in [true, false] {
                let mut encoder = cpu_encoder(profile, DEFAULT).gpu(&device, always, false);
                assert_eq!(encoder.encode(&feature, Quality::Scale(0.4)).unwrap(), expected);
                let mut decoder = cpu_decoder(profile).gpu(&device, always, false);
                assert_eq!(decoder.decode(&expected).unwrap(), decoded);
                same(decoder.decode(&expected[..20]), cpu_decoder(profile).decode(&expected[..20]), || "short".into());
            }
        }
        // Measured once: another measurement would count what it is given.
        let known = device.crossover().unwrap();
        assert_eq!(device.crossover_with(|_| panic!("measured again")).unwrap(), known);
        assert!(known >= 4096);
    }
}

#[test]
fn layers_are_coded_on_the_processor() {
    for device in devices() {
        for name in ["waves", "bursts"] {
            let profile = profile(name);
            let feature = array::<f32>(&profile.layout().shape(), 9, 20.0);
            let view = || FeatureView::from(&feature).with_axes(profile.layout().axes);
            for (layers, chunks) in [(2, 1), (3, 2), (4, 1)] {
                let encoder = cpu_encoder(Some(&profile), Options { chunks: Some(chunks), ..DEFAULT }).layers(layers);
                let stream = encoder.clone().encode(view(), Quality::Scale(0.3)).unwrap();
                let attached = encoder.gpu(&device, true, false).encode(view(), Quality::Scale(0.3));
                assert_eq!(attached.as_ref(), Ok(&stream), "{name}");
                let ends = narrows::Info::read(&stream).unwrap().layers;
                assert_eq!(ends.len(), layers);
                for end in ends {
                    let expected = cpu_decoder(Some(&profile)).decode(&stream[..end]).unwrap();
                    let attached = cpu_decoder(Some(&profile)).gpu(&device, true, false).decode(&stream[..end]);
                    assert!(bits(&attached.unwrap()) == bits(&expected), "{name} to {end}");
                    let mut decoder = gpu_decoder(&device, Some(&profile));
                    assert!(bits(&decoder.decode(&stream[..end]).unwrap()) == bits(&expected), "{name} to {end}");
                    let target =
                        FeatureBuffer::new(buffer(&device, &vec![0; 4 * feature.len()]), feature.shape(), Dtype::F32);
                    assert!(matches!(decoder.decode_into(&stream[..end], &target), Err(Error::Unsupported { .. })));
                }
            }
        }
    }
}
