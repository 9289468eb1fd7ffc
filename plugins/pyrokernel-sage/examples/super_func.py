@sageRemoteValue
def remote_mySuperFunc(self, sizeSeries,distribution='normal',
                   loc=1,scale=1,bins=50):
    s='AllServer.local_execJob %d, %s, %d, %d, %d'
    #log.msg(s % (sizeSeries, distribution,loc, scale, bins))
    ts = TimeSeries(sizeSeries)
    ts.randomize(distribution,loc,scale)
    return ts.histogram(bins=bins)
