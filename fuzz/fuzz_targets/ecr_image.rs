#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kubestrap_fuzz_guided::run("ecr_image", data));
