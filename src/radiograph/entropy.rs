//! Huffman codes and the bits of an entropy-coded JPEG segment (ITU-T T.81 annexes C and F).

/// The Huffman tables a decoder has at hand.
#[derive(Default)]
pub(super) struct HuffmanTables {
    dc: [Option<HuffmanTable>; 4],
    ac: [Option<HuffmanTable>; 4],
}

impl HuffmanTables {
    /// Takes in a DHT segment (B.2.4.2): per table its class and number, the count of codes of each length, and their
    /// symbols.
    pub(super) fn read(&mut self, mut body: &[u8]) -> Result<(), String> {
        while let [kind, rest @ ..] = body {
            let counts = rest.first_chunk::<16>().ok_or("expected 16 code counts")?;
            let n = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let symbols = rest.get(16..16 + n).ok_or("expected the symbols of a Huffman table")?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let table = tables.get_mut(usize::from(kind & 15)).ok_or("expected a Huffman table from 0 to 3")?;
            *table = Some(HuffmanTable::new(counts, symbols)?);
            body = &rest[16 + n..];
        }
        Ok(())
    }

    /// The DC table of that number.
    pub(super) fn dc(&self, number: u8) -> Result<&HuffmanTable, String> {
        named(&self.dc, number)
    }

    /// The AC table of that number.
    pub(super) fn ac(&self, number: u8) -> Result<&HuffmanTable, String> {
        named(&self.ac, number)
    }
}

fn named(tables: &[Option<HuffmanTable>; 4], number: u8) -> Result<&HuffmanTable, String> {
    let table = tables.get(usize::from(number)).and_then(Option::as_ref);
    table.ok_or_else(|| "expected the Huffman table the scan names".to_owned())
}

/// Every 16-bit string to the length of the code it starts with and that code's symbol; length 0 for no code.
pub(super) struct HuffmanTable(Vec<(u8, u8)>);

impl HuffmanTable {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, String> {
        let mut table = Vec::with_capacity(1 << 16);
        let mut symbols = symbols.iter();
        for (length, &count) in (1..=16u8).zip(counts) {
            for &symbol in symbols.by_ref().take(count.into()) {
                // Codes of one length are consecutive (annex C), so the table fills from the front.
                let span = 1usize << (16 - length);
                if table.len() + span > 1 << 16 {
                    return Err("expected a Huffman table that fits its code lengths".to_owned());
                }
                table.resize(table.len() + span, (length, symbol));
            }
        }
        table.resize(1 << 16, (0, 0));
        Ok(Self(table))
    }
}

/// Bits of entropy-coded data, most significant first, without the stuffed zeros after 0xFF.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    /// A reader of the entropy-coded segment that starts `data`.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, held: 0, count: 0 }
    }

    /// The next 16 bits, zeros beyond the end of the scan or interval.
    fn peek(&mut self) -> u16 {
        while self.count <= 48 {
            let (byte, length) = match self.data.get(self.at..) {
                Some([0xFF, 0x00, ..]) => (0xFF, 2),
                Some(&[byte, ..]) if byte != 0xFF => (byte, 1),
                _ => break,
            };
            self.at += length;
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        (self.held >> 48) as u16
    }

    fn consume(&mut self, n: u32) -> Result<(), String> {
        if n > self.count {
            return Err("expected more entropy-coded data, found its end".to_owned());
        }
        self.held <<= n;
        self.count -= n;
        Ok(())
    }

    /// The symbol of the next code.
    pub(super) fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, String> {
        let (length, symbol) = table.0[usize::from(self.peek())];
        if length == 0 {
            return Err("expected a Huffman code, found another bit string".to_owned());
        }
        self.consume(length.into())?;
        Ok(symbol)
    }

    /// Skips the `size` bits of a coefficient.
    pub(super) fn skip(&mut self, size: u8) -> Result<(), String> {
        self.peek();
        self.consume(size.into())
    }

    /// Where the next marker starts, if only padding of the last byte comes before it.
    pub(super) fn end(&mut self) -> Option<usize> {
        self.peek();
        let at_marker = matches!(self.data.get(self.at..), Some([0xFF, next, ..]) if *next != 0);
        (self.count < 8 && at_marker).then_some(self.at)
    }

    /// RECEIVE and EXTEND (F.2.2.1): a signed number of `size` bits.
    pub(super) fn extended(&mut self, size: u8) -> Result<i32, String> {
        let size = u32::from(size);
        if size == 0 {
            return Ok(0);
        }
        if size > 15 {
            return Err(format!("expected at most 15 bits of a coefficient, found {size}"));
        }
        let value = i32::from(self.peek() >> (16 - size));
        self.consume(size)?;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// Skips the rest of the interval's last byte and the restart marker.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        self.held = 0;
        self.count = 0;
        match self.data.get(self.at..) {
            Some([0xFF, 0xD0..=0xD7, ..]) => {
                self.at += 2;
                Ok(())
            }
            _ => Err("expected a restart marker".to_owned()),
        }
    }
}
