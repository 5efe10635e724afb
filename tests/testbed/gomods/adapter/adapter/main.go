// An adapter of custom metrics for the testbed: gauges of pods, as Prometheus has them, behind the API server's aggregation layer.
// A name of a series is the name of the metric, behind a prefix if there is one; of several series of one pod the greatest counts. It
// can be made faulty.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"

	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"
)

type adapter struct {
	cmd.AdapterBase
	prometheus string
	// Stands before the names of series in those of metrics.
	prefix string
	// Faults: a value that it gives whatever Prometheus says, how old the values are that it gives, whose values it gives to every pod
	// (NAMESPACE/NAME), and whether it keeps the first, or the greatest, value of a pod for ever.
	constant string
	lag      time.Duration
	of       string
	frozen   bool
	peak     bool

	mutex sync.Mutex
	kept  map[string]float64
}

// What it gives for a value of a pod that it found.
func (a *adapter) keep(key string, value float64) float64 {
	if !a.frozen && !a.peak {
		return value
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if kept, there := a.kept[key]; there && (a.frozen || kept > value) {
		return kept
	}
	a.kept[key] = value
	return value
}

type source struct {
	*adapter
	client dynamic.Interface
	mapper meta.RESTMapper
}

// What Prometheus says of a series in a namespace, by pod.
func (s *source) values(ctx context.Context, namespace, metric string) (map[string]float64, error) {
	metric, known := strings.CutPrefix(metric, s.prefix)
	if !known {
		return nil, nil
	}
	if s.of != "" {
		namespace, _, _ = strings.Cut(s.of, "/")
	}
	query := url.Values{"query": {fmt.Sprintf("max by (pod) (%s{namespace=%q})", metric, namespace)}}
	if s.lag > 0 {
		query.Set("time", strconv.FormatInt(time.Now().Add(-s.lag).Unix(), 10))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.prometheus+"/api/v1/query?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("prometheus: %s", answer.Error)
	}
	found := map[string]float64{}
	for _, series := range answer.Data.Result {
		text, _ := series.Value[1].(string)
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			found[series.Metric["pod"]] = value
		}
	}
	return found, nil
}

func (s *source) value(values map[string]float64, name types.NamespacedName, info provider.CustomMetricInfo) (*custom_metrics.MetricValue, error) {
	pod := name.Name
	if s.of != "" {
		_, pod, _ = strings.Cut(s.of, "/")
	}
	value, there := values[pod]
	if !there {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	object, err := helpers.ReferenceFor(s.mapper, name, info)
	if err != nil {
		return nil, err
	}
	value = s.keep(name.String()+"/"+info.Metric, value)
	quantity := resource.NewMilliQuantity(int64(value*1000), resource.DecimalSI)
	if s.constant != "" {
		if *quantity, err = resource.ParseQuantity(s.constant); err != nil {
			return nil, err
		}
	}
	return &custom_metrics.MetricValue{
		DescribedObject: object,
		Metric:          custom_metrics.MetricIdentifier{Name: info.Metric},
		Timestamp:       metav1.Now(),
		Value:           *quantity,
	}, nil
}

func (s *source) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo, _ labels.Selector) (*custom_metrics.MetricValue, error) {
	values, err := s.values(ctx, name.Namespace, info.Metric)
	if err != nil {
		return nil, err
	}
	return s.value(values, name, info)
}

func (s *source) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info provider.CustomMetricInfo, _ labels.Selector) (*custom_metrics.MetricValueList, error) {
	names, err := helpers.ListObjectNames(s.mapper, s.client, namespace, selector, info)
	if err != nil {
		return nil, err
	}
	values, err := s.values(ctx, namespace, info.Metric)
	if err != nil {
		return nil, err
	}
	list := &custom_metrics.MetricValueList{Items: []custom_metrics.MetricValue{}}
	for _, name := range names {
		if value, err := s.value(values, types.NamespacedName{Namespace: namespace, Name: name}, info); err == nil {
			list.Items = append(list.Items, *value)
		}
	}
	return list, nil
}

// Any gauge of a pod can be asked for, so no list is complete.
func (s *source) ListAllMetrics() []provider.CustomMetricInfo {
	return nil
}

func run() error {
	a := &adapter{kept: map[string]float64{}}
	a.Name = "metrics-adapter"
	flags := a.Flags()
	flags.StringVar(&a.prometheus, "prometheus", "", "where Prometheus answers")
	flags.StringVar(&a.prefix, "prefix", "", "what stands before the names of series in those of metrics")
	flags.StringVar(&a.constant, "constant", "", "fault: the value that is given, whatever Prometheus says")
	flags.DurationVar(&a.lag, "lag", 0, "fault: how old the values are")
	flags.StringVar(&a.of, "of", "", "fault: the pod whose values every pod gets, as NAMESPACE/NAME")
	flags.BoolVar(&a.frozen, "frozen", false, "fault: the first value of a pod is kept")
	flags.BoolVar(&a.peak, "peak", false, "fault: the greatest value of a pod is kept")
	if err := flags.Parse(os.Args); err != nil {
		return err
	}
	client, err := a.DynamicClient()
	if err != nil {
		return err
	}
	mapper, err := a.RESTMapper()
	if err != nil {
		return err
	}
	a.WithCustomMetrics(&source{a, client, mapper})
	return a.Run(context.Background())
}

func main() {
	if err := run(); err != nil {
		klog.ErrorS(err, "the adapter ended")
		klog.Flush()
		os.Exit(1)
	}
}
