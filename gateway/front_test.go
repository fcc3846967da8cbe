package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	checkPath = "/grpc.health.v1.Health/Check"
	watchPath = "/grpc.health.v1.Health/Watch"
)

// front serves a gRPC server with one service, which has a method that streams its output, on
// HTTP/1.1 and HTTP/2.
func front(t *testing.T) (*health.Server, *httptest.Server) {
	t.Helper()
	service, server := health.NewServer(), grpc.NewServer(grpc.WaitForHandlers(true))
	healthpb.RegisterHealthServer(server, service)
	f := NewFront(server, FrontOptions{MaxRequest: 1000, BodyTimeout: time.Minute})
	public := httptest.NewUnstartedServer(f)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	public.Config.Protocols = &protocols
	public.Start()
	t.Cleanup(func() {
		server.Stop()
		public.Close()
	})
	return service, public
}

func post(t *testing.T, url, body string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestFrontSpeaksJSON(t *testing.T) {
	_, public := front(t)
	for name, tc := range map[string]struct {
		path, body string
		headers    []string
		status     int
		want       string
	}{
		"a call":             {checkPath, `{"service":""}`, nil, 200, `{"status":"SERVING"}`},
		"an empty body":      {checkPath, "", nil, 200, `{"status":"SERVING"}`},
		"a charset":          {checkPath, "{}", []string{"Content-Type", "application/json; charset=utf-8"}, 200, `{"status":"SERVING"}`},
		"Connect":            {checkPath, "{}", []string{"Connect-Protocol-Version", "1"}, 200, `{"status":"SERVING"}`},
		"an error":           {checkPath, `{"service":"x"}`, nil, 404, `{"code":5,"message":"unknown service","details":[]}`},
		"an error, Connect":  {checkPath, `{"service":"x"}`, []string{"Connect-Protocol-Version", "1"}, 404, `"code":"not_found"`},
		"an unknown field":   {checkPath, `{"servise":"x"}`, nil, 400, `unknown field \"servise\"`},
		"no JSON":            {checkPath, `{`, nil, 400, `"code":3`},
		"a form":             {checkPath, "service=x", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, `send content-type: application/json`},
		"text":               {checkPath, "{}", []string{"Content-Type", "text/plain"}, 415, `send content-type: application/json`},
		"an unknown method":  {"/grpc.health.v1.Health/Chek", "{}", nil, 404, "no route for POST"},
		"an unknown service": {"/other.v1.Service/Call", "{}", nil, 404, "no route for POST"},
		"another path":       {"/", "{}", nil, 404, "no route for POST"},
		"too much":           {checkPath, `{"service":"` + strings.Repeat("x", 1100) + `"}`, nil, 413, "larger than 1000 bytes"},
		"too much, Connect":  {checkPath, `{"service":"` + strings.Repeat("x", 1100) + `"}`, []string{"Connect-Protocol-Version", "1"}, 429, "resource_exhausted"},
		"packed too much":    {checkPath, packed(t, strings.Repeat(" ", 9000)+"{}"), []string{"Connect-Protocol-Version", "1", "Content-Encoding", "gzip"}, 429, "resource_exhausted"},
		"no time":            {checkPath, "{}", []string{"X-Server-Timeout", "none"}, 400, "x-server-timeout"},
	} {
		status, text := post(t, public.URL+tc.path, tc.body, tc.headers...)
		if status != tc.status || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %d %s; want %d %s", name, status, text, tc.status, tc.want)
		}
	}
	res, err := http.Get(public.URL + checkPath) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d, allowed %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFrontSpeaksRPC calls by native gRPC, gRPC-Web and Connect, with one reply and with several.
func TestFrontSpeaksRPC(t *testing.T) {
	_, public := front(t)
	conn, err := grpc.NewClient("passthrough:///"+public.Listener.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil ||
		res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("gRPC: %v, %v", res, err)
	}
	for name, options := range map[string][]connect.ClientOption{
		"Connect":      nil,
		"Connect JSON": {connect.WithProtoJSON()},
		"gRPC-Web":     {connect.WithGRPCWeb()},
	} {
		check := connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](http.DefaultClient,
			public.URL+checkPath, options...)
		if res, err := check.CallUnary(t.Context(), connect.NewRequest(&healthpb.HealthCheckRequest{})); err != nil ||
			res.Msg.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: %v, %v", name, res, err)
		}
		if _, err := check.CallUnary(t.Context(),
			connect.NewRequest(&healthpb.HealthCheckRequest{Service: "x"})); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s of an unknown service: %v", name, err)
		}
		ctx, leave := context.WithCancel(t.Context())
		watch := connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](http.DefaultClient,
			public.URL+watchPath, options...)
		stream, err := watch.CallServerStream(ctx, connect.NewRequest(&healthpb.HealthCheckRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() || stream.Msg().GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: stream %v", name, stream.Err())
		}
		leave()
		for stream.Receive() {
			t.Errorf("%s: %v after the caller left", name, stream.Msg())
		}
		_ = stream.Close()
	}
}

// TestFrontHasNoCORS: the services of the runtime are not for pages.
func TestFrontHasNoCORS(t *testing.T) {
	_, public := front(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, public.URL+checkPath, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "http://localhost:5173")
	r.Header.Set("Access-Control-Request-Method", "POST")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// TestFrontStreamsJSON: replies come one by one, as lines or as events, and a stream that fails
// does not end as if it were whole.
func TestFrontStreamsJSON(t *testing.T) {
	for name, tc := range map[string]struct {
		accept, contentType string
		first, second       string
	}{
		"lines":  {"", "application/json", `{"status":"SERVING"}`, `{"status":"NOT_SERVING"}`},
		"events": {"text/event-stream", "text/event-stream", `data: {"status":"SERVING"}`, `data: {"status":"NOT_SERVING"}`},
	} {
		t.Run(name, func(t *testing.T) {
			service, public := front(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, public.URL+watchPath, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", tc.accept)
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != tc.contentType {
				t.Errorf("%d, %s", res.StatusCode, res.Header.Get("Content-Type"))
			}
			lines := bufio.NewScanner(res.Body)
			next := func() string {
				for lines.Scan() {
					if lines.Text() != "" {
						return lines.Text()
					}
				}
				return ""
			}
			if got := next(); got != tc.first {
				t.Errorf("first %q", got)
			}
			service.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
			if got := next(); got != tc.second {
				t.Errorf("second %q", got)
			}
		})
	}
}

// TestFrontCutsAStreamThatFails: after a reply an error cannot be an ordinary response any more.
func TestFrontCutsAStreamThatFails(t *testing.T) {
	w := httptest.NewRecorder()
	failing := func(sse bool) *frontCall {
		c := &frontCall{
			w: w, method: methodAt(watchPath), json: newJSONCodec(nil), header: http.Header{}, sse: sse, streamed: true,
		}
		c.header.Set("Grpc-Status", "14")
		c.header.Set("Grpc-Message", "the log%3A gone")
		return c
	}
	failing(true).end()
	const want = "event: error\ndata: {\"code\":14,\"message\":\"the log: gone\",\"details\":[]}\n\n"
	if got := w.Body.String(); got != want {
		t.Errorf("an event stream ends with %q", got)
	}
	defer func() {
		if got := recover(); got != http.ErrAbortHandler { //nolint:errorlint // the value itself
			t.Errorf("lines end with %v", got)
		}
	}()
	failing(false).end()
}

// TestFrontOfAStoppedServer: a server that was stopped answers nothing, and the caller is told.
func TestFrontOfAStoppedServer(t *testing.T) {
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	f := NewFront(server, FrontOptions{MaxRequest: 1000, BodyTimeout: time.Minute})
	server.Stop()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, checkPath, http.NoBody)
	r.Header.Set("Content-Type", "application/json")
	f.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "this process is ending") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestFrontErrorsSayWhatIsKnown: codes that speak of the request mean that nothing was done.
func TestFrontErrorsSayWhatIsKnown(t *testing.T) {
	for code, want := range map[codes.Code]string{
		codes.InvalidArgument: "not_applied", codes.Unimplemented: "not_applied", codes.FailedPrecondition: "unknown",
		codes.Unavailable: "unknown",
	} {
		w := httptest.NewRecorder()
		(*Front)(nil).Refuse(w, code, "no")
		if got := w.Header().Get(headerOutcome); got != want {
			t.Errorf("%v: %s, want %s", code, got, want)
		}
	}
}
