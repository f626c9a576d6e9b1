//! As much of Kafka's Produce requests and responses as their faults need.
//!
//! <https://kafka.apache.org/protocol#The_Messages_Produce>: librdkafka uses versions up to 10, and
//! puts one partition into a request. From version 9 on, lengths are varints and tagged fields
//! follow each structure.

use rdkafka::types::RDKafkaRespErr;

/// How Kafka's protocol numbers this kind of request.
const PRODUCE: i16 = 0;
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=12;
const FIRST_FLEXIBLE: i16 = 9;

/// Where the producer is in a batch of records, of version 2.
const PRODUCER_AT: usize = 43;

/// The number that a response repeats.
pub(super) type Correlation = [u8; 4];

/// One request for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) correlation: Correlation,
    pub(super) version: i16,
    pub(super) topic: String,
    pub(super) partition: i32,
    /// -1 without idempotence.
    pub(super) producer: i64,
    pub(super) epoch: i16,
    /// Of the first record.
    pub(super) sequence: i32,
}

/// What a request is to its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Produce(Request),
    /// A produce request that no broker answers.
    Unanswered,
    Other(Correlation),
}

/// Reads a request, size included.
///
/// # Panics
///
/// When it is not one of Kafka's, or it is a produce request for many partitions: a fault would
/// silently be none.
pub(super) fn request(message: &[u8]) -> Message {
    parse_request(message).expect("this is a request of Kafka's protocol for one partition")
}

/// The error code in the broker's response to this request, size included.
///
/// # Panics
///
/// When it is not the response to a produce request of one partition.
pub(super) fn error_of(response: &[u8], request: &Request) -> i16 {
    parse_error(response, request).expect("this is the response to a produce request")
}

fn parse_request(message: &[u8]) -> Option<Message> {
    let mut from = Reader::new(message, false);
    from.skip(4)?;
    let (api, version) = (from.i16()?, from.i16()?);
    let correlation = from.take()?;
    if api != PRODUCE {
        return Some(Message::Other(correlation));
    }
    if !VERSIONS.contains(&version) {
        return None;
    }
    // The client's id is never compact.
    from.text()?;
    from.is_flexible = version >= FIRST_FLEXIBLE;
    from.tags()?;
    let _transaction = from.text()?;
    let acks = from.i16()?;
    let _timeout = from.skip(4)?;
    let topics = from.length()?;
    let topic = from.text()?;
    let partitions = from.length()?;
    let partition = from.i32()?;
    let _size = from.length()?;
    if (topics, partitions) != (1, 1) {
        return None;
    }
    from.skip(PRODUCER_AT)?;
    let request = Request {
        correlation,
        version,
        topic,
        partition,
        producer: i64::from_be_bytes(from.take()?),
        epoch: from.i16()?,
        sequence: from.i32()?,
    };
    Some(match acks {
        0 => Message::Unanswered,
        _ => Message::Produce(request),
    })
}

fn parse_error(response: &[u8], request: &Request) -> Option<i16> {
    let mut from = Reader::new(response, request.version >= FIRST_FLEXIBLE);
    from.skip(4)?;
    let correlation: Correlation = from.take()?;
    from.tags()?;
    let topics = from.length()?;
    let topic = from.text()?;
    let partitions = from.length()?;
    let partition = from.i32()?;
    let is_meant = correlation == request.correlation
        && (topics, topic, partitions, partition)
            == (1, request.topic.clone(), 1, request.partition);
    is_meant.then_some(from.i16()?)
}

/// The response by which a broker refuses a request, size included.
pub(super) fn refusal(request: &Request, error: RDKafkaRespErr) -> Vec<u8> {
    let is_flexible = request.version >= FIRST_FLEXIBLE;
    let mut to = Writer {
        bytes: vec![0; 4],
        is_flexible,
    };
    to.put(&request.correlation);
    to.tags();
    to.length(1);
    to.text(&request.topic);
    to.length(1);
    to.put(&request.partition.to_be_bytes());
    to.put(&(error as i16).to_be_bytes());
    // Offset, and time of the append.
    to.put(&(-1_i64).to_be_bytes());
    to.put(&(-1_i64).to_be_bytes());
    if request.version >= 5 {
        // The log's first offset.
        to.put(&(-1_i64).to_be_bytes());
    }
    if request.version >= 8 {
        // No record is named, and there is no message.
        to.length(0);
        to.null();
    }
    to.tags();
    to.tags();
    // Not throttled.
    to.put(&0_i32.to_be_bytes());
    to.tags();
    to.finish()
}

struct Reader<'a> {
    rest: &'a [u8],
    is_flexible: bool,
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [u8], is_flexible: bool) -> Self {
        Self { rest, is_flexible }
    }

    fn skip(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(skipped)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.skip(N)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Of an array, or of bytes; none where they are null.
    fn length(&mut self) -> Option<usize> {
        match self.is_flexible {
            true => self.varint()?.checked_sub(1),
            false => usize::try_from(self.i32()?).ok(),
        }
    }

    /// Empty for null.
    fn text(&mut self) -> Option<String> {
        let length = match self.is_flexible {
            true => self.varint()?.saturating_sub(1),
            false => usize::try_from(self.i16()?).unwrap_or(0),
        };
        String::from_utf8(self.skip(length)?.to_vec()).ok()
    }

    fn tags(&mut self) -> Option<()> {
        if self.is_flexible {
            for _ in 0..self.varint()? {
                let _number = self.varint()?;
                let size = self.varint()?;
                self.skip(size)?;
            }
        }
        Some(())
    }
}

struct Writer {
    bytes: Vec<u8>,
    is_flexible: bool,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn length(&mut self, length: u16) {
        match self.is_flexible {
            true => self.varint(usize::from(length) + 1),
            false => self.put(&i32::from(length).to_be_bytes()),
        }
    }

    fn text(&mut self, text: &str) {
        match self.is_flexible {
            true => self.varint(text.len() + 1),
            false => self.put(&(text.len() as u16).to_be_bytes()),
        }
        self.put(text.as_bytes());
    }

    /// Instead of a text.
    fn null(&mut self) {
        match self.is_flexible {
            true => self.varint(0),
            false => self.put(&(-1_i16).to_be_bytes()),
        }
    }

    fn tags(&mut self) {
        if self.is_flexible {
            self.varint(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let size = self.bytes.len() - 4;
        self.bytes[..4].copy_from_slice(&(size as u32).to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of one record, as librdkafka writes it.
    fn sample(version: i16, acks: i16) -> Vec<u8> {
        let mut to = Writer {
            bytes: vec![0; 4],
            is_flexible: false,
        };
        to.put(&PRODUCE.to_be_bytes());
        to.put(&version.to_be_bytes());
        to.put(&[1, 2, 3, 4]);
        to.text("rdkafka");
        to.is_flexible = version >= FIRST_FLEXIBLE;
        to.tags();
        to.null();
        to.put(&acks.to_be_bytes());
        to.put(&5000_i32.to_be_bytes());
        to.length(1);
        // Longer than what one byte of a varint tells.
        to.text(&"t".repeat(200));
        to.length(1);
        to.put(&7_i32.to_be_bytes());
        to.length(300);
        to.put(&[0; PRODUCER_AT]);
        to.put(&11_i64.to_be_bytes());
        to.put(&2_i16.to_be_bytes());
        to.put(&40_i32.to_be_bytes());
        to.put(&[0; 243]);
        to.tags();
        to.tags();
        to.tags();
        to.finish()
    }

    #[test]
    fn a_request_is_read_and_its_refusal_reads_back_in_every_version() {
        for version in VERSIONS {
            let expected = Request {
                correlation: [1, 2, 3, 4],
                version,
                topic: "t".repeat(200),
                partition: 7,
                producer: 11,
                epoch: 2,
                sequence: 40,
            };
            assert_eq!(request(&sample(version, 0)), Message::Unanswered);
            let read = request(&sample(version, -1));
            assert_eq!(read, Message::Produce(expected.clone()));
            let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
            let refusal = refusal(&expected, error);
            assert_eq!(error_of(&refusal, &expected), 19);
        }
    }

    #[test]
    fn other_requests_are_known_by_their_correlation() {
        let metadata = [0, 0, 0, 8, 0, 3, 0, 12, 9, 8, 7, 6];
        assert_eq!(request(&metadata), Message::Other([9, 8, 7, 6]));
    }
}
