package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// serve serves a process until the test ends, and returns the address of its admin port.
func serve(t *testing.T, of Process) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settled := make(chan struct{})
	close(settled)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	server := NewServer(NewService(of), l, Options{Settled: settled})
	go func() { ended <- server.Serve(ctx) }() // ends with ctx; received below
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

const servicePath = "/millrace.admin.v1.AdminService/"

func call(t *testing.T, address, method string, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+servicePath+method,
		strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Header = header.Get("Host"), header
	if r.Host == "" {
		r.Host = address
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

func jsonHeader(more ...string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// TestTheServiceDescribesItself: clients such as grpcurl find the service and its messages by
// server reflection.
func TestTheServiceDescribesItself(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///"+serve(t, serving(t)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	listed := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService()
	if !slices.ContainsFunc(listed, func(s *reflectionpb.ServiceResponse) bool {
		return s.GetName() == "millrace.admin.v1.AdminService"
	}) {
		t.Errorf("listed %v", listed)
	}
	for _, s := range append(listed, &reflectionpb.ServiceResponse{Name: "millrace.admin.v1.GetEntityRequest"}) {
		answer := ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.GetName()},
		})
		if len(answer.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: %v", s.GetName(), answer)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestEveryMethodIsReachedByJSON: by plain JSON and by Connect, each with its own form of errors.
func TestEveryMethodIsReachedByJSON(t *testing.T) {
	address := serve(t, serving(t))
	methods := adminv1.File_millrace_admin_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		code, text := call(t, address, name, jsonHeader())
		switch {
		case code == http.StatusOK:
		case code == http.StatusNotFound, !strings.HasPrefix(text, `{"code":`), !strings.HasSuffix(text, `,"details":[]}`+"\n"):
			t.Errorf("%s: %d %s", name, code, text)
		}
		if methods.Get(i).IsStreamingServer() {
			continue
		}
		if connect, text := call(t, address, name, jsonHeader("Connect-Protocol-Version", "1")); code == http.StatusOK &&
			connect != code ||
			code != http.StatusOK && !strings.HasPrefix(text, `{"code":"`) {
			t.Errorf("%s by Connect: %d %s", name, connect, text)
		}
	}
	if code, text := call(t, address, "Status", jsonHeader()); code != http.StatusOK || !strings.Contains(text, `"version":"test"`) || !strings.Contains(text, `"name":"shop.v1.CartService"`) {
		t.Errorf("Status: %d %s", code, text)
	}
	if code, text := call(t, address, "Tail", jsonHeader()); code != http.StatusNotImplemented || !strings.Contains(text, "a gateway has no log and no store") {
		t.Errorf("Tail: %d %s", code, text)
	}
}

// TestAPageOfAnotherOriginIsRefused: a browser that shows a page from elsewhere cannot be made to
// call the service, also where the name of that page's host resolves to this port.
func TestAPageOfAnotherOriginIsRefused(t *testing.T) {
	address := serve(t, serving(t))
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		header http.Header
		want   int
	}{
		"no browser":               {jsonHeader(), http.StatusOK},
		"its own page":             {jsonHeader("Origin", "http://"+address, "Sec-Fetch-Site", "same-origin"), http.StatusOK},
		"its own page, localhost":  {jsonHeader("Host", "localhost:"+port, "Origin", "http://localhost:"+port), http.StatusOK},
		"its own page, IPv6":       {jsonHeader("Host", "[::1]:"+port, "Origin", "http://[::1]:"+port), http.StatusOK},
		"a page of another site":   {jsonHeader("Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		"an older browser":         {jsonHeader("Origin", "http://evil.example"), http.StatusForbidden},
		"a page without an origin": {jsonHeader("Origin", "null"), http.StatusForbidden},
		"another port of the host": {jsonHeader("Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		"a name that is rebound":   {jsonHeader("Host", "evil.example:"+port, "Origin", "http://evil.example:"+port, "Sec-Fetch-Site", "same-origin"), http.StatusForbidden},
	} {
		if code, text := call(t, address, "Status", tc.header); code != tc.want || code == http.StatusForbidden &&
			!strings.HasPrefix(text, `{"code":7,`) {
			t.Errorf("%s: %d %s; want %d", name, code, text, tc.want)
		}
	}
}

// TestGETCallsNothing: a browser sends a GET from any page, and Connect has calls by GET.
func TestGETCallsNothing(t *testing.T) {
	address := serve(t, serving(t))
	for _, query := range []string{"", "?connect=v1&encoding=json&message=%7B%7D"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+servicePath+"Status"+query,
			http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET %q: %d", query, res.StatusCode)
		}
	}
}
