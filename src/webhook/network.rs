//! Networks that are believed more than others: monitors, and proxies.

use std::net::IpAddr;

/// A network: an address and how many of its leading bits count.
/// IPv4 is kept as IPv4-mapped IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let (widest, offset) = if address.is_ipv4() {
            (32, 96)
        } else {
            (128, 0)
        };
        let bits = bits.map_or(Some(widest), |bits| {
            bits.parse().ok().filter(|bits| *bits <= widest)
        })?;
        Some(Self {
            address: mapped(address),
            bits: bits + offset,
        })
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        (self.address ^ mapped(address)).leading_zeros() >= self.bits
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_own_and_nobody_else() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(
            Network::parse("10.0.0.0/8")
                .unwrap()
                .contains("::ffff:10.1.1.1".parse().unwrap())
        );
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "host",
            "::/129",
            "10.0.0.0/-1",
        ] {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
    }
}
