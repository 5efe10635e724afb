// A DRA driver for tests: each device of a node is a character device of the machine that does no harm when it is opened.
//
// It writes one CDI file for each prepared claim, and removes it again. It knows nothing of health, sharing or partitions.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
)

const (
	driverName = "devices.karat.local"
	cdiKind    = "karat.local/device"
)

// Devices by the names they have in slices, in the order of the command line.
type devices struct {
	names []string
	nodes map[string]string
}

func (d *devices) String() string { return strings.Join(d.names, ",") }

func (d *devices) Set(text string) error {
	name, node, found := strings.Cut(text, "=")
	if !found || d.nodes[name] != "" {
		return errors.New("expected NAME=PATH, each name once")
	}
	d.names = append(d.names, name)
	d.nodes[name] = node
	return nil
}

type driver struct {
	devices devices
	cdiDir  string
}

type cdiSpec struct {
	Version string      `json:"cdiVersion"`
	Kind    string      `json:"kind"`
	Devices []cdiDevice `json:"devices"`
}

type cdiDevice struct {
	Name  string   `json:"name"`
	Edits cdiEdits `json:"containerEdits"`
}

type cdiEdits struct {
	Env   []string  `json:"env"`
	Nodes []cdiNode `json:"deviceNodes"`
}

type cdiNode struct {
	Path        string `json:"path"`
	HostPath    string `json:"hostPath"`
	Type        string `json:"type"`
	Major       int64  `json:"major"`
	Minor       int64  `json:"minor"`
	FileMode    uint32 `json:"fileMode"`
	Permissions string `json:"permissions"`
}

func (d *driver) file(claim types.UID) string {
	return filepath.Join(d.cdiDir, "karat.local-device_"+string(claim)+".json")
}

func (d *driver) prepare(claim *resourceapi.ResourceClaim) ([]kubeletplugin.Device, error) {
	spec := cdiSpec{Version: "0.6.0", Kind: cdiKind}
	var prepared []kubeletplugin.Device
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != driverName {
			continue
		}
		host, known := d.devices.nodes[result.Device]
		if !known {
			return nil, fmt.Errorf("device %s is not of this node", result.Device)
		}
		var stat unix.Stat_t
		if err := unix.Stat(host, &stat); err != nil {
			return nil, fmt.Errorf("%s: %w", host, err)
		}
		// A device of CDI belongs to one claim, else two claims with the same request would write the same name.
		name := string(claim.UID) + "-" + result.Device
		spec.Devices = append(spec.Devices, cdiDevice{Name: name, Edits: cdiEdits{
			Env: []string{"KARAT_DEVICE_" + strings.ToUpper(strings.ReplaceAll(result.Device, "-", "_")) + "=1"},
			Nodes: []cdiNode{{
				Path: "/dev/karat-" + result.Device, HostPath: host, Type: "c",
				Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
				// Pods run as any user; that the device is theirs is said by the claim.
				FileMode: 0o666, Permissions: "rw",
			}},
		}})
		prepared = append(prepared, kubeletplugin.Device{
			Requests: []string{result.Request}, PoolName: result.Pool, DeviceName: result.Device,
			CDIDeviceIDs: []string{cdiKind + "=" + name},
		})
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	// containerd watches the folder and must not see half a file.
	beside := d.file(claim.UID) + ".new"
	if err := os.WriteFile(beside, text, 0o644); err != nil {
		return nil, err
	}
	return prepared, os.Rename(beside, d.file(claim.UID))
}

func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		prepared, err := d.prepare(claim)
		results[claim.UID] = kubeletplugin.PrepareResult{Devices: prepared, Err: err}
	}
	return results, nil
}

func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		err := os.Remove(d.file(claim.UID))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		results[claim.UID] = err
	}
	return results, nil
}

func (d *driver) HandleError(_ context.Context, err error, message string) {
	klog.ErrorS(err, message)
}

func (d *driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

func run() error {
	d := &driver{devices: devices{nodes: map[string]string{}}}
	kubeconfig := flag.String("kubeconfig", "", "credentials")
	node := flag.String("node", "", "name of the node")
	kubelet := flag.String("kubelet", "", "root folder of the kubelet")
	flag.StringVar(&d.cdiDir, "cdi", "", "folder for CDI files")
	flag.Var(&d.devices, "device", "NAME=PATH of a device; repeatable")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	data := filepath.Join(*kubelet, "plugins", driverName)
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.KubeClient(client),
		kubeletplugin.NodeName(*node),
		kubeletplugin.DriverName(driverName),
		kubeletplugin.RegistrarDirectoryPath(filepath.Join(*kubelet, "plugins_registry")),
		kubeletplugin.PluginDataDirectoryPath(data),
		kubeletplugin.HealthService(false))
	if err != nil {
		return err
	}
	defer helper.Stop()
	var published []resourceapi.Device
	for i, name := range d.devices.names {
		index := int64(i)
		published = append(published, resourceapi.Device{
			Name:       name,
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"index": {IntValue: &index}},
		})
	}
	pool := resourceslice.Pool{Slices: []resourceslice.Slice{{Devices: published}}}
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{*node: pool}}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dra-driver:", err)
		os.Exit(1)
	}
}
