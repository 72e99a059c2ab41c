// A real OpenTelemetry Collector, of the release that docker-compose.yml names and with the parts that its configuration
// names, reads k8s/components/observability/config/collector.yaml, is told traces, and passes on those worth keeping.
package collector

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/batchprocessor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	config  = "../../../k8s/components/observability/config/collector.yaml"
	release = "v0.160.0"
)

func TestTheCollectorIsOfTheReleaseThatRuns(t *testing.T) {
	image := "otel/opentelemetry-collector-contrib:" + strings.TrimPrefix(release, "v")
	for file, wanted := range map[string]string{
		"../../../docker-compose.yml": "image: " + image + "\n",
		"go.mod":                      "tailsamplingprocessor " + release + "\n",
	} {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), wanted) {
			t.Errorf("%s doesn't say %q (%v)", file, wanted, err)
		}
	}
}

func TestTheConfigurationIsUnderstood(t *testing.T) {
	if err := collector(t, config).DryRun(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestAMistakeInTheConfigurationIsFound(t *testing.T) {
	for _, mistake := range []string{
		"processors::tail_sampling::decision_weight: 20s",
		"exporters::otlp_grpc/jaeger::tls::unsafe: true",
		"service::pipelines::traces::processors: [memory_limiter, tail_sampler]",
	} {
		if collector(t, config, "yaml:"+mistake).DryRun(context.Background()) == nil {
			t.Errorf("nobody minds %s", mistake)
		}
	}
}

func TestWhatWentWrongIsKeptWholeAndOfTheRestAFew(t *testing.T) {
	jaeger := &sink{spans: map[pcommon.TraceID]int{}}
	ports := free(t, 3)
	server := grpc.NewServer()
	ptraceotlp.RegisterGRPCServer(server, jaeger)
	listener, err := net.Listen("tcp", ports[0])
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Stop()

	running := collector(t, config,
		"yaml:exporters::otlp_grpc/jaeger::endpoint: "+ports[0],
		"yaml:receivers::otlp::protocols::grpc::endpoint: "+ports[1],
		"yaml:receivers::otlp::protocols::http::endpoint: 127.0.0.1:0",
		"yaml:extensions::health_check::endpoint: "+ports[2],
		"yaml:processors::tail_sampling::decision_wait: 2s",
		"yaml:service::telemetry::metrics::level: none",
		"yaml:service::telemetry::logs::level: error",
	)
	ended := make(chan error, 1)
	go func() { ended <- running.Run(context.Background()) }()
	defer func() {
		running.Shutdown()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	connection, err := grpc.NewClient(ports[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := ptraceotlp.NewGRPCClient(connection)

	// A story's second span comes from another service, and says nothing of what happened in the first.
	// Of those three ids none would be kept by chance.
	const failed, slow, dead, ordinary = 4, 2, 3, 1000
	const stories = 1000
	first := ptrace.NewTraces()
	span(first, "payment", failed, time.Second).Status().SetCode(ptrace.StatusCodeError)
	span(first, "order", slow, 11*time.Second)
	span(first, "kitchen", dead, time.Second).Attributes().PutBool("rainstorm.dead_letter", true)
	for story := uint64(ordinary); story < ordinary+stories; story++ {
		span(first, "order", story, 9*time.Second)
	}
	second := ptrace.NewTraces()
	for _, story := range []uint64{failed, slow, dead} {
		span(second, "query", story, time.Second)
	}
	tell(t, client, first)
	tell(t, client, second)

	if !within(20*time.Second, func() bool {
		return jaeger.has(failed) == 2 && jaeger.has(slow) == 2 && jaeger.has(dead) == 2 && jaeger.many() > 3
	}) {
		t.Fatalf("failed: %d, slow: %d, dead-lettered: %d spans of 2 each", jaeger.has(failed), jaeger.has(slow), jaeger.has(dead))
	}
	late := ptrace.NewTraces()
	span(late, "query", failed, time.Second)
	tell(t, client, late)
	if !within(20*time.Second, func() bool { return jaeger.has(failed) == 3 }) {
		t.Error("a span that came after the decision was lost")
	}
	// 5 %, by a hash of the id.
	if kept := jaeger.many() - 3; kept < 25 || kept > 75 {
		t.Errorf("%d of %d ordinary stories were kept", kept, stories)
	}
}

// A collector with the parts that our configuration names.
func collector(t *testing.T, uris ...string) *otelcol.Collector {
	t.Helper()
	it, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Version: release},
		Factories: func() (otelcol.Factories, error) {
			return otelcol.Factories{
				Extensions: parts[extension.Factory](healthcheckextension.NewFactory()),
				Receivers:  parts[receiver.Factory](otlpreceiver.NewFactory()),
				Processors: parts[processor.Factory](
					memorylimiterprocessor.NewFactory(), tailsamplingprocessor.NewFactory(), batchprocessor.NewFactory(),
				),
				Exporters: parts[exporter.Factory](otlpexporter.NewFactory()),
				Telemetry: otelconftelemetry.NewFactory(),
			}, nil
		},
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs:              uris,
			ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory(), yamlprovider.NewFactory()},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func parts[F component.Factory](factories ...F) map[component.Type]F {
	byType := map[component.Type]F{}
	for _, factory := range factories {
		byType[factory.Type()] = factory
	}
	return byType
}

// sink is who gets what the collector passes on: how many spans of each trace.
type sink struct {
	ptraceotlp.UnimplementedGRPCServer
	lock  sync.Mutex
	spans map[pcommon.TraceID]int
}

func (it *sink) Export(_ context.Context, request ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	it.lock.Lock()
	defer it.lock.Unlock()
	for _, resource := range request.Traces().ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				it.spans[span.TraceID()]++
			}
		}
	}
	return ptraceotlp.NewExportResponse(), nil
}

func (it *sink) has(story uint64) int {
	it.lock.Lock()
	defer it.lock.Unlock()
	return it.spans[id(story)]
}

func (it *sink) many() int {
	it.lock.Lock()
	defer it.lock.Unlock()
	return len(it.spans)
}

// id looks as random as a trace's id does, and is the same every time.
func id(story uint64) pcommon.TraceID {
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, story))
	return pcommon.TraceID(hash[:16])
}

// span adds one that begins now and takes so long.
func span(traces ptrace.Traces, service string, story uint64, takes time.Duration) ptrace.Span {
	resource := traces.ResourceSpans().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", service)
	span := resource.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	span.SetName("react")
	span.SetTraceID(id(story))
	span.SetSpanID(pcommon.SpanID([]byte(fmt.Sprintf("%8.8s", service))))
	span.Attributes().PutStr("rainstorm.order.id", fmt.Sprint(story))
	now := time.Now()
	span.SetStartTimestamp(pcommon.NewTimestampFromTime(now))
	span.SetEndTimestamp(pcommon.NewTimestampFromTime(now.Add(takes)))
	return span
}

// tell waits until the collector is there.
func tell(t *testing.T, client ptraceotlp.GRPCClient, traces ptrace.Traces) {
	t.Helper()
	var err error
	if !within(20*time.Second, func() bool {
		_, err = client.Export(context.Background(), ptraceotlp.NewExportRequestFromTraces(traces))
		return err == nil
	}) {
		t.Fatal(err)
	}
}

func within(patience time.Duration, holds func() bool) bool {
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(100 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// free finds addresses that nobody listens at.
func free(t *testing.T, many int) (addresses []string) {
	t.Helper()
	for range many {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses
}
