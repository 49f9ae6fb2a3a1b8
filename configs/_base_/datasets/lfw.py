# A test on LFW or one of its relatives from its own list of pairs, at full size, at LFW_SIZE
# pixels, or degraded by the preset LFW_PRESET; LFW_PROTOCOL names the set. It has no training set:
# for `mmvlr reproduce --also-test lfw`, or a config that adds a model and this file.
_base_ = './faces.py'

_env = __import__('os').environ
lfw_root = _env.get('LFW_ROOT') or 'data/lfw'
lfw_protocol = _env.get('LFW_PROTOCOL') or 'lfw'
lfw_degraded = []
if _env.get('LFW_SIZE'):
    lfw_degraded = [dict(type='DownsampleFace', size=int(_env['LFW_SIZE']), enlarge=False)]
if _env.get('LFW_PRESET'):
    lfw_degraded = [dict(type='VLRDegradation', preset=_env['LFW_PRESET'])]
lfw_pipeline = [
    dict(type='LoadFace'),
    *lfw_degraded,
    dict(type='ResizeFace', size=(112, 112), interpolation='bicubic'),
    dict(type='PackFace'),
]
del _env

test_dataloader = dict(
    dataset=dict(type='LFWFamily', data_root=lfw_root, protocol=lfw_protocol, pipeline=lfw_pipeline)
)
test_evaluator = dict(type='VerificationMetric', prefix=lfw_protocol, insightface=True)
