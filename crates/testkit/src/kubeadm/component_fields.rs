//! The fields of `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) and `KubeProxyConfiguration`
//! (kubeproxy.config.k8s.io/v1alpha1) of Kubernetes 1.36, taken from `k8s.io/kubelet/config/v1beta1/types.go`,
//! `k8s.io/kube-proxy/config/v1alpha1/types.go` and what they embed. A table and not types: nobody reads the fields,
//! they are only checked.
//!
//! A line is a type and its fields; `[x]` is a list of x, `{x}` a map to x, a capital letter begins another type.

/// Types, one a line.
pub(super) const TYPES: &str = "\
KubeletConfiguration: apiVersion=string kind=string enableServer=bool staticPodPath=string podLogsDir=string \
    syncFrequency=duration fileCheckFrequency=duration httpCheckFrequency=duration staticPodURL=string \
    staticPodURLHeader={[string]} address=string port=int readOnlyPort=int tlsCertFile=string \
    tlsPrivateKeyFile=string tlsCipherSuites=[string] tlsCurvePreferences=[int] tlsMinVersion=string \
    rotateCertificates=bool serverTLSBootstrap=bool authentication=KubeletAuthentication \
    authorization=KubeletAuthorization registryPullQPS=int registryBurst=int \
    imagePullCredentialsVerificationPolicy=string preloadedImagesVerificationAllowlist=[string] eventRecordQPS=int \
    eventBurst=int enableDebuggingHandlers=bool enableContentionProfiling=bool healthzPort=int \
    healthzBindAddress=string oomScoreAdj=int clusterDomain=string clusterDNS=[string] \
    streamingConnectionIdleTimeout=duration nodeStatusUpdateFrequency=duration nodeStatusReportFrequency=duration \
    nodeLeaseDurationSeconds=int imageMinimumGCAge=duration imageMaximumGCAge=duration \
    imageGCHighThresholdPercent=int imageGCLowThresholdPercent=int volumeStatsAggPeriod=duration \
    kubeletCgroups=string systemCgroups=string cgroupRoot=string cgroupsPerQOS=bool cgroupDriver=string \
    cpuManagerPolicy=string singleProcessOOMKill=bool cpuManagerPolicyOptions={string} \
    cpuManagerReconcilePeriod=duration memoryManagerPolicy=string topologyManagerPolicy=string \
    topologyManagerScope=string topologyManagerPolicyOptions={string} qosReserved={string} \
    runtimeRequestTimeout=duration hairpinMode=string maxPods=int podCIDR=string podPidsLimit=int resolvConf=string \
    runOnce=bool cpuCFSQuota=bool cpuCFSQuotaPeriod=duration nodeStatusMaxImages=int maxOpenFiles=int \
    contentType=string kubeAPIQPS=int kubeAPIBurst=int serializeImagePulls=bool maxParallelImagePulls=int \
    evictionHard={string} evictionSoft={string} evictionSoftGracePeriod={string} \
    evictionPressureTransitionPeriod=duration evictionMaxPodGracePeriod=int evictionMinimumReclaim={string} \
    mergeDefaultEvictionSettings=bool podsPerCore=int enableControllerAttachDetach=bool protectKernelDefaults=bool \
    makeIPTablesUtilChains=bool iptablesMasqueradeBit=int iptablesDropBit=int featureGates={bool} failSwapOn=bool \
    memorySwap=MemorySwapConfiguration containerLogMaxSize=string containerLogMaxFiles=int \
    containerLogMaxWorkers=int containerLogMonitorInterval=duration configMapAndSecretChangeDetectionStrategy=string \
    systemReserved={string} kubeReserved={string} reservedSystemCPUs=string showHiddenMetricsForVersion=string \
    systemReservedCgroup=string kubeReservedCgroup=string enforceNodeAllocatable=[string] \
    allowedUnsafeSysctls=[string] volumePluginDir=string providerID=string kernelMemcgNotification=bool \
    logging=LoggingConfiguration enableSystemLogHandler=bool enableSystemLogQuery=bool shutdownGracePeriod=duration \
    shutdownGracePeriodCriticalPods=duration shutdownGracePeriodByPodPriority=[ShutdownGracePeriodByPodPriority] \
    crashLoopBackOff=CrashLoopBackOffConfig reservedMemory=[MemoryReservation] enableProfilingHandler=bool \
    enableDebugFlagsHandler=bool seccompDefault=bool memoryThrottlingFactor=float memoryReservationPolicy=string \
    registerWithTaints=[Taint] registerNode=bool tracing=TracingConfiguration localStorageCapacityIsolation=bool \
    containerRuntimeEndpoint=string imageServiceEndpoint=string failCgroupV1=bool userNamespaces=UserNamespaces
KubeProxyConfiguration: apiVersion=string kind=string featureGates={bool} \
    clientConnection=ClientConnectionConfiguration logging=LoggingConfiguration hostnameOverride=string \
    bindAddress=string healthzBindAddress=string metricsBindAddress=string bindAddressHardFail=bool \
    enableProfiling=bool showHiddenMetricsForVersion=string mode=string iptables=KubeProxyIPTablesConfiguration \
    ipvs=KubeProxyIPVSConfiguration nftables=KubeProxyNFTablesConfiguration \
    winkernel=KubeProxyWinkernelConfiguration detectLocalMode=string detectLocal=DetectLocalConfiguration \
    clusterCIDR=string nodePortAddresses=[string] oomScoreAdj=int conntrack=KubeProxyConntrackConfiguration \
    configSyncPeriod=duration portRange=string windowsRunAsService=bool
KubeletAuthentication: x509=KubeletX509Authentication webhook=KubeletWebhookAuthentication \
    anonymous=KubeletAnonymousAuthentication
KubeletAuthorization: mode=string webhook=KubeletWebhookAuthorization
MemorySwapConfiguration: swapBehavior=string
LoggingConfiguration: format=string flushFrequency=duration_or_int verbosity=int vmodule=[VModuleItem] \
    options=FormatOptions
ShutdownGracePeriodByPodPriority: priority=int shutdownGracePeriodSeconds=int
CrashLoopBackOffConfig: maxContainerRestartPeriod=duration
MemoryReservation: numaNode=int limits={quantity}
Taint: key=string value=string effect=string timeAdded=string
TracingConfiguration: endpoint=string samplingRatePerMillion=int
UserNamespaces: idsPerPod=int
ClientConnectionConfiguration: kubeconfig=string acceptContentTypes=string contentType=string qps=float \
    burst=int
KubeProxyIPTablesConfiguration: masqueradeBit=int masqueradeAll=bool localhostNodePorts=bool syncPeriod=duration \
    minSyncPeriod=duration
KubeProxyIPVSConfiguration: syncPeriod=duration minSyncPeriod=duration scheduler=string excludeCIDRs=[string] \
    strictARP=bool tcpTimeout=duration tcpFinTimeout=duration udpTimeout=duration
KubeProxyNFTablesConfiguration: masqueradeBit=int masqueradeAll=bool syncPeriod=duration minSyncPeriod=duration
KubeProxyWinkernelConfiguration: networkName=string sourceVip=string enableDSR=bool rootHnsEndpointName=string \
    forwardHealthCheckVip=bool
DetectLocalConfiguration: bridgeInterface=string interfaceNamePrefix=string
KubeProxyConntrackConfiguration: maxPerCore=int min=int tcpEstablishedTimeout=duration \
    tcpCloseWaitTimeout=duration tcpBeLiberal=bool udpTimeout=duration udpStreamTimeout=duration
KubeletX509Authentication: clientCAFile=string
KubeletWebhookAuthentication: enabled=bool cacheTTL=duration
KubeletAnonymousAuthentication: enabled=bool
KubeletWebhookAuthorization: cacheAuthorizedTTL=duration cacheUnauthorizedTTL=duration
VModuleItem: filePattern=string verbosity=int
FormatOptions: text=TextOptions json=JSONOptions
TextOptions: splitStream=bool infoBufferSize=quantity
JSONOptions: splitStream=bool infoBufferSize=quantity
";
