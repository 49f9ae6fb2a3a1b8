default_scope = 'mmvlr'
runner_type = 'FaceRunner'
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1))
randomness = dict(seed=0)
log_level = 'INFO'
resume = False
default_hooks = dict(
    runtime_info=dict(type='BufferedRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='val/mAP',
        rule='greater',
        backend_args=dict(backend='atomic_local'),
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    guard=dict(type='CheckpointGuardHook'),
    collapse=dict(type='CollapseGuardHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    resume=dict(type='ResumeHook'),
    # Several ranks: one set of batch norm statistics.
    sync_buffers=dict(type='SyncBuffersHook'),
)
log_processor = dict(window_size=10, by_epoch=True)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
