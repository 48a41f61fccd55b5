//! As much of Python's pickle as a PyTorch file of weights is written in: numbers, texts, containers, and what
//! `torch.save` makes of tensors. Nothing that a pickle names is run; an object of any other class is [`Value::Other`].
//!
//! The opcodes are those of Python's `pickletools`, protocols 2 to 5.

use std::collections::HashMap;

/// Where the items of a container lie in [`Unpickled`]: two names may stand for one of them, and none holds another by
/// value, so that no nesting costs stack or is copied.
pub(super) type Place = usize;

/// A Python value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    /// Its items by [`Unpickled::list`], as a list's.
    Tuple(Place),
    /// Its items by [`Unpickled::list`].
    List(Place),
    /// Its items by [`Unpickled::dict`].
    Dict(Place),
    /// A class or function by its full name.
    Global(String),
    /// A piece of memory that lies elsewhere in the file.
    Storage(Storage),
    Tensor(Box<TensorView>),
    /// Whatever is of no use for weights.
    Other,
}

/// What a tensor's numbers lie in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Python's class, as "torch.FloatStorage".
    pub(super) class: String,
    /// Its name in the file.
    pub(super) key: String,
}

/// A tensor: which numbers of a storage it shows, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorView {
    pub(super) storage: Storage,
    /// All three in elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A pickle's value and what belongs to it.
#[derive(Debug)]
pub(super) struct Unpickled {
    pub(super) value: Value,
    /// The bytes that it took.
    pub(super) length: usize,
    /// Every storage that it names.
    pub(super) storages: Vec<Storage>,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Unpickled {
    pub(super) fn list(&self, place: Place) -> &[Value] {
        &self.lists[place]
    }

    pub(super) fn dict(&self, place: Place) -> &[(Value, Value)] {
        &self.dicts[place]
    }
}

/// Reads the pickle that `bytes` begin with.
///
/// # Errors
/// One sentence with the place of the first byte that is not understood.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Unpickled, String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let at = machine.at;
        match machine.step() {
            Some(true) => {}
            Some(false) => {
                let value = machine.stack.pop().flatten().ok_or("a pickle without a value")?;
                let Machine { at: length, storages, lists, dicts, .. } = machine;
                return Ok(Unpickled { value, length, storages, lists, dicts });
            }
            None => {
                let code = bytes.get(at).copied().unwrap_or_default();
                return Err(format!("its pickle is cut or unknown at byte {at} (0x{code:02x})"));
            }
        }
    }
}

/// Python's unpickling machine; a `None` on its stack is a mark.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Option<Value>>,
    memo: HashMap<u32, Value>,
    storages: Vec<Storage>,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl<'a> Machine<'a> {
    /// One opcode: whether there is another; `None` where it cannot be read.
    fn step(&mut self) -> Option<bool> {
        let [code] = self.array()?;
        match code {
            // PROTO, FRAME
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'.' => return Some(false),
            b'(' => self.stack.push(None),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool(code == 0x88)),
            b'K' => self.integer::<1>(false)?,
            b'M' => self.integer::<2>(false)?,
            b'J' => self.integer::<4>(true)?,
            // LONG1: of any length; what no number of 64 bits holds is none that weights need.
            0x8a => {
                let length = self.length::<1>()?;
                let digits = self.take(length)?;
                let mut whole = [digits.last().map_or(0, |d| if d & 0x80 == 0 { 0 } else { 0xff }); 8];
                let value = whole.get_mut(..length).map(|low| low.copy_from_slice(digits));
                self.push(value.map_or(Value::Other, |()| Value::Int(i64::from_le_bytes(whole))));
            }
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other);
            }
            // SHORT_BINUNICODE, BINUNICODE; Python 2's SHORT_BINSTRING, BINSTRING
            0x8c | b'U' => self.text::<1>()?,
            b'X' | b'T' => self.text::<4>()?,
            // SHORT_BINBYTES, BINBYTES
            b'C' => self.bytes::<1>()?,
            b'B' => self.bytes::<4>()?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}")));
            }
            // STACK_GLOBAL
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.push(Value::Global(format!("{module}.{name}"))),
                _ => return None,
            },
            b')' => self.new_tuple(Vec::new()),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                self.tuple(from)?;
            }
            b't' => {
                let mark = self.mark()?;
                self.tuple(mark + 1)?;
                let tuple = self.stack.pop()?;
                *self.stack.last_mut()? = tuple;
            }
            b']' => self.new_list(),
            b'}' => self.new_dict(),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.above_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(vec![key, value])?;
            }
            b'u' => {
                let items = self.above_mark()?;
                self.extend_dict(items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let name = self.length::<1>()?;
                self.remember(name)?;
            }
            b'r' => {
                let name = self.length::<4>()?;
                self.remember(name)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let name = self.length::<1>()?;
                self.recall(name)?;
            }
            b'j' => {
                let name = self.length::<4>()?;
                self.recall(name)?;
            }
            b'Q' => {
                let name = self.pop()?;
                let named = self.storage(&name);
                self.storages.extend(named.clone());
                self.push(named.map_or(Value::Other, Value::Storage));
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(&callable, arguments)?;
            }
            // BUILD: an object's attributes, as the versions that a state_dict carries
            b'b' => drop(self.pop()?),
            _ => return None,
        }
        Some(true)
    }

    fn call(&mut self, callable: &Value, arguments: Value) -> Option<()> {
        let (Value::Global(name), Value::Tuple(place)) = (callable, arguments) else {
            self.push(Value::Other);
            return Some(());
        };
        let first = || self.lists.get(place)?.first().cloned();
        let made = match name.as_str() {
            "collections.OrderedDict" => {
                self.new_dict();
                return Some(());
            }
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                Value::Tensor(Box::new(self.tensor(place)?))
            }
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
            | "torch.autograd.variable.Variable"
            | "torch.Size" => first().unwrap_or(Value::Other),
            _ => Value::Other,
        };
        self.push(made);
        Some(())
    }

    /// `("storage", class, key, device, elements)`, and in files of before PyTorch 1.6 one more: which part of it, if not
    /// all.
    fn storage(&self, name: &Value) -> Option<Storage> {
        let Value::Tuple(place) = name else { return None };
        match self.lists.get(*place)?.as_slice() {
            [Value::Text(kind), Value::Global(class), Value::Text(key), _, _]
            | [Value::Text(kind), Value::Global(class), Value::Text(key), _, _, Value::None]
                if kind == "storage" =>
            {
                Some(Storage { class: class.clone(), key: key.clone() })
            }
            _ => None,
        }
    }

    /// `(storage, offset, shape, strides, ..)`.
    fn tensor(&self, arguments: Place) -> Option<TensorView> {
        let [Value::Storage(storage), Value::Int(offset), shape, strides, ..] = self.lists.get(arguments)?.as_slice()
        else {
            return None;
        };
        let extents = |value: &Value| -> Option<Vec<usize>> {
            let Value::Tuple(place) = value else { return None };
            let extent = |item: &Value| if let Value::Int(n) = item { usize::try_from(*n).ok() } else { None };
            self.lists.get(*place)?.iter().map(extent).collect()
        };
        let (shape, strides) = (extents(shape)?, extents(strides)?);
        let offset = usize::try_from(*offset).ok()?;
        (shape.len() == strides.len()).then(|| TensorView { storage: storage.clone(), offset, shape, strides })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// N bytes, the lowest first.
    fn length<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.array::<N>()?;
        Some(bytes.iter().rev().fold(0, |sum, &byte| (sum << 8) | usize::from(byte)))
    }

    fn integer<const N: usize>(&mut self, signed: bool) -> Option<()> {
        let value = self.length::<N>()?;
        self.push(Value::Int(if signed { i64::from(value as u32 as i32) } else { value as i64 }));
        Some(())
    }

    fn text<const N: usize>(&mut self) -> Option<()> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.push(Value::Text(text));
        Some(())
    }

    fn bytes<const N: usize>(&mut self) -> Option<()> {
        let length = self.length::<N>()?;
        self.take(length)?;
        self.push(Value::Other);
        Some(())
    }

    fn line(&mut self) -> Option<String> {
        let length = self.bytes.get(self.at..)?.iter().position(|&byte| byte == b'\n')?;
        let line = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.at += 1;
        Some(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(Some(value));
    }

    fn pop(&mut self) -> Option<Value> {
        self.stack.pop()?
    }

    fn mark(&self) -> Option<usize> {
        self.stack.iter().rposition(Option::is_none)
    }

    /// What lies above the last mark, which goes with it.
    fn above_mark(&mut self) -> Option<Vec<Value>> {
        let mark = self.mark()?;
        let items = self.stack.drain(mark + 1..).collect();
        self.stack.pop();
        items
    }

    fn tuple(&mut self, from: usize) -> Option<()> {
        let items: Option<Vec<Value>> = self.stack.drain(from..).collect();
        self.new_tuple(items?);
        Some(())
    }

    fn new_tuple(&mut self, items: Vec<Value>) {
        self.push(Value::Tuple(self.lists.len()));
        self.lists.push(items);
    }

    fn new_list(&mut self) {
        self.push(Value::List(self.lists.len()));
        self.lists.push(Vec::new());
    }

    fn new_dict(&mut self) {
        self.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    /// Into the list on top; another object keeps its items to itself.
    fn extend_list(&mut self, items: Vec<Value>) -> Option<()> {
        match self.stack.last()? {
            Some(Value::List(place)) => self.lists.get_mut(*place)?.extend(items),
            Some(Value::Other) => {}
            _ => return None,
        }
        Some(())
    }

    /// As [`extend_list`](Self::extend_list), of keys and values in turn.
    fn extend_dict(&mut self, items: Vec<Value>) -> Option<()> {
        let mut items = items.into_iter();
        let pairs = std::iter::from_fn(|| Some((items.next()?, items.next()?)));
        match self.stack.last()? {
            Some(Value::Dict(place)) => self.dicts.get_mut(*place)?.extend(pairs),
            Some(Value::Other) => {}
            _ => return None,
        }
        Some(())
    }

    fn remember(&mut self, name: usize) -> Option<()> {
        let value = self.stack.last()?.clone()?;
        self.memo.insert(u32::try_from(name).ok()?, value);
        Some(())
    }

    fn recall(&mut self, name: usize) -> Option<()> {
        let value = self.memo.get(&u32::try_from(name).ok()?)?.clone();
        self.push(value);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_are_shared_and_numbers_of_every_width_come_back() {
        // pickle.dumps({"a": (1, -2, 300, True, None), "b": l, "c": l}, 2) with l = [70000, 2**70]
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xffM,\x01\x88Ntq\x02X\x01\x00\x00\x00bq\
                      \x03]q\x04(Jp\x11\x01\x00\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@eX\x01\x00\x00\x00cq\x05h\x04u.rest";
        let found = unpickle(bytes).expect("a pickle");
        assert_eq!(&bytes[found.length..], b"rest");
        let Value::Dict(place) = found.value else { panic!("{:?}", found.value) };
        let key = |name: &str| Value::Text(name.to_owned());
        let items = found.dict(place);
        assert_eq!(items[0].0, key("a"));
        let Value::Tuple(tuple) = items[0].1 else { panic!("{items:?}") };
        let expected = [Value::Int(1), Value::Int(-2), Value::Int(300), Value::Bool(true), Value::None];
        assert_eq!(found.list(tuple), expected);
        assert_eq!((&items[1].0, &items[2].0, &items[1].1), (&key("b"), &key("c"), &items[2].1));
        let Value::List(list) = items[1].1 else { panic!("{items:?}") };
        assert_eq!(found.list(list), [Value::Int(70000), Value::Other]);
    }

    #[test]
    fn a_parameter_of_before_1_0_is_its_tensor_and_a_part_of_a_storage_is_none() {
        // Parameter(_rebuild_tensor(storage, 1, (2,), (1,)), True), and what the storage's name ends with.
        let pickle = |end: &[u8]| {
            let head = b"\x80\x02ctorch.nn.parameter\nParameter\n(ctorch._utils\n_rebuild_tensor\n((X\x07\x00\x00\x00storagectorch\n\
                         FloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x04";
            [head.as_slice(), end, b"tQK\x01K\x02\x85K\x01\x85tR\x88tR."].concat()
        };
        let found = unpickle(&pickle(b"N")).expect("a pickle").value;
        let storage = Storage { class: "torch.FloatStorage".to_owned(), key: "7".to_owned() };
        let view = TensorView { storage, offset: 1, shape: vec![2], strides: vec![1] };
        assert_eq!(found, Value::Tensor(Box::new(view)));
        assert!(unpickle(&pickle(b"K\x01")).is_err(), "whatever that part is");
    }

    #[test]
    fn no_cut_or_foreign_pickle_is_more_than_an_error() {
        let whole = b"\x80\x02(X\x01\x00\x00\x00aq\x01K\x01tq\x02.";
        assert!(unpickle(whole).is_ok());
        for length in 0..whole.len() {
            assert!(unpickle(&whole[..length]).is_err(), "{length}");
        }
        for code in 0..=255 {
            // Nothing lies on the stack that it could take.
            let _ = unpickle(&[code, b'.']);
        }
        // A million tuples in each other, and one that doubles forty times: neither stack nor memory.
        let deep = [b"\x80\x02)".as_slice(), &[0x85; 1_000_000], b"."].concat();
        assert!(unpickle(&deep).is_ok());
        let doubling = [b"\x80\x02)".as_slice(), &b"q\x00h\x00\x86".repeat(40), b"."].concat();
        assert!(unpickle(&doubling).is_ok());
        // collections.defaultdict(list, {"a": 1}), of which nothing is kept.
        let other = unpickle(b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RX\x01\x00\x00\x00aK\x01s.");
        assert_eq!(other.expect("an object").value, Value::Other);
        assert_eq!(unpickle(b"\x80\x02\xff").expect_err("no opcode"), "its pickle is cut or unknown at byte 2 (0xff)");
    }
}
