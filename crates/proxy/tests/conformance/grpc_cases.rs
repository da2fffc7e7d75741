//! The gRPC interoperability cases by tonic, the third language. The messages of `grpc.testing` are few: their fields stand here.

use http::uri::PathAndQuery;
use std::{net::SocketAddr, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EchoStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// `SimpleRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Simple {
    #[prost(int32, tag = "2")]
    response_size: i32,
    #[prost(message, optional, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

/// `SimpleResponse` and `StreamingOutputCallResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

/// `StreamingInputCallRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Input {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

/// `StreamingInputCallResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Aggregated {
    #[prost(int32, tag = "1")]
    size: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Parameters {
    #[prost(int32, tag = "1")]
    size: i32,
}

/// `StreamingOutputCallRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Output {
    #[prost(message, repeated, tag = "2")]
    parameters: Vec<Parameters>,
    #[prost(message, optional, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

const SIZES: [i32; 4] = [31415, 9, 2653, 58979];
const REQUESTS: [usize; 4] = [27182, 8, 1828, 45904];
const SERVICE: &str = "/grpc.testing.TestService";
const LIMIT: Duration = Duration::from_secs(60);
const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";

/// One client: every call is one method of it.
struct Client(Grpc<Channel>);

/// Every case, one after the other on one channel, as the other languages do.
pub(crate) async fn run(addr: SocketAddr) {
    let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
    let mut client = Client(Grpc::new(channel).max_decoding_message_size(1 << 20));
    client.unary_cases().await;
    client.streaming_cases().await;
    client.metadata_cases().await;
    client.status_cases().await;
    client.cases_that_end_early().await;
}

impl Client {
    async fn unary<M, R>(&mut self, path: &str, request: Request<M>) -> Result<Response<R>, Status>
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        self.0.unary(timed(request), path_of(path), ProstCodec::<M, R>::default()).await
    }

    /// The method that both sides stream on.
    async fn duplex(
        &mut self,
        requests: Request<impl Stream<Item = Output> + Send + 'static>,
    ) -> Result<Response<Streaming<Answer>>, Status> {
        self.0.ready().await.unwrap();
        self.0.streaming(requests, path_of("/FullDuplexCall"), ProstCodec::<Output, Answer>::default()).await
    }

    /// empty_unary, large_unary.
    async fn unary_cases(&mut self) {
        let empty = self.unary::<_, Empty>("/EmptyCall", Request::new(Empty {})).await.unwrap();
        assert_eq!(empty.into_inner(), Empty {});
        let large = Simple { response_size: 314_159, payload: payload(271_828), ..Simple::default() };
        let answer = self.unary::<_, Answer>("/UnaryCall", Request::new(large)).await.unwrap();
        assert_eq!(size(answer.get_ref()), 314_159);
    }

    /// client_streaming, server_streaming, ping_pong, empty_stream.
    async fn streaming_cases(&mut self) {
        let sent = tokio_stream::iter(REQUESTS).map(|n| Input { payload: payload(n) });
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Input, Aggregated>::default();
        let call = self.0.client_streaming(timed(Request::new(sent)), path_of("/StreamingInputCall"), codec);
        assert_eq!(call.await.unwrap().get_ref().size, 74922);

        let asked = Output { parameters: SIZES.map(|size| Parameters { size }).to_vec(), ..Output::default() };
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Output, Answer>::default();
        let call = self.0.server_streaming(timed(Request::new(asked)), path_of("/StreamingOutputCall"), codec);
        let answers: Vec<_> = call.await.unwrap().into_inner().map(|answer| size(&answer.unwrap())).collect().await;
        assert_eq!(answers, SIZES.map(|size| size as usize));

        // The server's head comes with its first answer.
        let (sender, requests) = mpsc::channel(1);
        sender.send(ping(SIZES[0], REQUESTS[0])).await.unwrap();
        let mut answers = self.duplex(timed(Request::new(ReceiverStream::new(requests)))).await.unwrap().into_inner();
        for n in 0..SIZES.len() {
            assert_eq!(size(&answers.next().await.unwrap().unwrap()), SIZES[n] as usize);
            if n + 1 < SIZES.len() {
                sender.send(ping(SIZES[n + 1], REQUESTS[n + 1])).await.unwrap();
            }
        }
        drop(sender);
        assert!(answers.next().await.is_none());

        let nothing = tokio_stream::empty::<Output>();
        let mut answers = self.duplex(timed(Request::new(nothing))).await.unwrap().into_inner();
        assert!(answers.next().await.is_none());
    }

    /// custom_metadata, on a unary call and on a stream.
    async fn metadata_cases(&mut self) {
        let simple = Simple { response_size: 1, payload: payload(1), ..Simple::default() };
        let answer = self.unary::<_, Answer>("/UnaryCall", echoed(Request::new(simple))).await.unwrap();
        // Of a unary call tonic puts the trailers among the headers.
        assert_eq!(answer.metadata().get(INITIAL).unwrap(), INITIAL_VALUE);
        assert_eq!(answer.metadata().get_bin(TRAILING).unwrap().to_bytes().unwrap().as_ref(), TRAILING_VALUE);

        let once = tokio_stream::once(ping(1, 1));
        let answer = self.duplex(echoed(timed(Request::new(once)))).await.unwrap();
        assert_eq!(answer.metadata().get(INITIAL).unwrap(), INITIAL_VALUE);
        let mut answers = answer.into_inner();
        while answers.message().await.unwrap().is_some() {}
        let trailers = answers.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get_bin(TRAILING).unwrap().to_bytes().unwrap().as_ref(), TRAILING_VALUE);
    }

    /// status_code_and_message, special_status_message, unimplemented_method, unimplemented_service.
    async fn status_cases(&mut self) {
        for message in ["test status message", SPECIAL] {
            let status = Some(EchoStatus { code: 2, message: message.to_owned() });
            let simple = Simple { response_status: status.clone(), ..Simple::default() };
            let unary = self.unary::<_, Answer>("/UnaryCall", Request::new(simple)).await.unwrap_err();
            assert_eq!((unary.code(), unary.message()), (Code::Unknown, message));
            let once = tokio_stream::once(Output { response_status: status, ..Output::default() });
            let streamed = match self.duplex(timed(Request::new(once))).await {
                Ok(answers) => answers.into_inner().next().await.unwrap().unwrap_err(),
                Err(status) => status,
            };
            assert_eq!((streamed.code(), streamed.message()), (Code::Unknown, message));
        }
        let missing = self.unary::<_, Empty>("/UnimplementedCall", Request::new(Empty {})).await.unwrap_err();
        assert_eq!(missing.code(), Code::Unimplemented);
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/grpc.testing.UnimplementedService/UnimplementedCall");
        let codec = ProstCodec::<Empty, Empty>::default();
        let missing = self.0.unary(timed(Request::new(Empty {})), path, codec).await.unwrap_err();
        assert_eq!(missing.code(), Code::Unimplemented);
    }

    /// cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server.
    async fn cases_that_end_early(&mut self) {
        let (sender, requests) = mpsc::channel::<Input>(1);
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Input, Aggregated>::default();
        let begun = self.0.client_streaming(
            timed(Request::new(ReceiverStream::new(requests))),
            path_of("/StreamingInputCall"),
            codec,
        );
        // It is given up before there is an answer; the channel lives on.
        assert!(tokio::time::timeout(Duration::from_millis(50), begun).await.is_err());
        // Nobody takes the requests any more.
        sender.closed().await;

        let (sender, requests) = mpsc::channel(1);
        sender.send(ping(SIZES[0], REQUESTS[0])).await.unwrap();
        let mut answers = self.duplex(timed(Request::new(ReceiverStream::new(requests)))).await.unwrap().into_inner();
        assert_eq!(size(&answers.next().await.unwrap().unwrap()), SIZES[0] as usize);
        drop(answers);

        let (sender, requests) = mpsc::channel(1);
        sender.send(Output { payload: payload(27182), ..Output::default() }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(requests));
        request.set_timeout(Duration::from_millis(10));
        let late = match self.duplex(request).await {
            Ok(answers) => answers.into_inner().next().await.unwrap().unwrap_err(),
            Err(status) => status,
        };
        // The server keeps the same deadline: where its reset is first, that is what this client reports.
        assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late:?}");
        drop(sender);

        // What was cancelled has not cost the others their connection.
        self.unary::<_, Empty>("/EmptyCall", Request::new(Empty {})).await.unwrap();
    }
}

const INITIAL: &str = "x-grpc-test-echo-initial";
const INITIAL_VALUE: &str = "test_initial_metadata_value";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
const TRAILING_VALUE: &[u8] = &[0xab, 0xab, 0xab];

/// Asks the server to send the metadata back.
fn echoed<M>(mut request: Request<M>) -> Request<M> {
    request.metadata_mut().insert(INITIAL, MetadataValue::from_static(INITIAL_VALUE));
    request.metadata_mut().insert_bin(TRAILING, MetadataValue::from_bytes(TRAILING_VALUE));
    request
}

fn timed<M>(mut request: Request<M>) -> Request<M> {
    request.set_timeout(LIMIT);
    request
}

fn path_of(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{SERVICE}{method}")).unwrap()
}

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { body: vec![0; size] })
}

fn ping(size: i32, request: usize) -> Output {
    Output { parameters: vec![Parameters { size }], payload: payload(request), ..Output::default() }
}

/// The length of the body.
fn size(answer: &Answer) -> usize {
    answer.payload.as_ref().map_or(0, |payload| payload.body.len())
}
